package sqlkeys_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
	"github.com/senderauth/senderauth/senderauthtest"
)

func TestValidateReturnsTheSender(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		limits := map[string]senderauth.Limit{
			"default":  {Requests: 200, Per: time.Minute, Burst: 50},
			"messages": senderauth.Unlimited(),
			"users":    senderauth.Blocked(),
		}
		sender, err := s.CreateSender(t.Context(), sqlkeys.NewSender{Limits: limits, Metadata: map[string]string{"tier": "gold"}})
		require.NoError(t, err)
		expires := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
		k := s.issue(t, sqlkeys.NewKey{SenderID: sender.ID, Environment: sqlkeys.Staging, ExpiresAt: expires, Name: "web",
			Metadata: map[string]string{"for": "tests"}, Scopes: []string{"orders:read"}, Networks: prefixes("10.0.0.0/8")})

		want := senderauth.Sender{
			ID:      sender.ID,
			KeyID:   k.Key.ID,
			Limits:  limits,
			Expires: expires,
			Scopes:  []string{"orders:read"}, Networks: prefixes("10.0.0.0/8"),
			Detail: sqlkeys.Detail{Environment: sqlkeys.Staging, KeyName: "web",
				KeyMetadata: map[string]string{"for": "tests"}, Metadata: map[string]string{"tier": "gold"}},
		}
		got, err := s.Validate(t.Context(), k.Credentials)
		require.NoError(t, err)
		require.Equal(t, want, got)

		upper := senderauth.Credentials{SenderID: strings.ToUpper(sender.ID), APIKey: strings.ToUpper(k.Credentials.APIKey)}
		got, err = s.Validate(t.Context(), upper)
		require.NoError(t, err)
		require.Equal(t, want, got, "letter case does not matter")

		got, err = s.Validate(t.Context(), senderauth.Credentials{APIKey: k.Credentials.APIKey})
		require.NoError(t, err)
		require.Equal(t, want, got, "the key alone identifies its sender")
	})
}

func TestStateDecidesWhetherAKeyIsAccepted(t *testing.T) {
	const hour = 3_600_000
	cases := []struct {
		name  string
		set   map[string]int // columns to set, in milliseconds from now
		state sqlkeys.State
		works bool
	}{
		{"active", nil, sqlkeys.Active, true},
		{"not before, past", map[string]int{"not_before": -1}, sqlkeys.Active, true},
		{"not before, to come", map[string]int{"not_before": hour}, sqlkeys.Pending, false},
		{"expiry to come", map[string]int{"expires_at": hour}, sqlkeys.Active, true},
		{"expired", map[string]int{"expires_at": 0}, sqlkeys.Expired, false},
		{"within the grace", map[string]int{"grace_until": hour}, sqlkeys.Retiring, true},
		{"past the grace", map[string]int{"grace_until": 0}, sqlkeys.Rotated, false},
		{"within the grace, expired", map[string]int{"grace_until": hour, "expires_at": -1}, sqlkeys.Expired, false},
		{"disabled", map[string]int{"disabled_at": -1}, sqlkeys.Disabled, false},
		{"disabled, in the grace", map[string]int{"disabled_at": -1, "grace_until": hour}, sqlkeys.Disabled, false},
		{"revoked", map[string]int{"revoked_at": -1, "disabled_at": -1, "expires_at": -1, "grace_until": -1}, sqlkeys.Revoked, false},
	}
	onBothStores(t, func(t *testing.T, s fixture) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				k := s.issue(t, sqlkeys.NewKey{})
				other := s.sender(t)
				for column, ms := range c.set {
					s.byHand(t, k.Key.ID, column, ms)
				}
				stored, err := s.Key(t.Context(), k.Key.ID)
				require.NoError(t, err)
				require.Equal(t, c.state, stored.State)

				got, err := s.Validate(t.Context(), k.Credentials)
				mismatch := k.Credentials
				mismatch.SenderID = other
				_, mismatched := s.Validate(t.Context(), mismatch)
				if c.works {
					require.NoError(t, err)
					require.Equal(t, k.Key.SenderID, got.ID)
					require.ErrorIs(t, mismatched, senderauth.ErrKeyMismatch)
					return
				}
				require.Equal(t, senderauth.Sender{}, got)
				require.ErrorIs(t, err, senderauth.ErrInvalidKey)
				require.ErrorIs(t, mismatched, senderauth.ErrInvalidKey, "an inactive key says nothing of senders")
				var refused *sqlkeys.RefusedError
				require.ErrorAs(t, err, &refused)
				require.Equal(t, k.Key.ID, refused.KeyID)
				require.Equal(t, k.Key.SenderID, refused.SenderID)
				require.Equal(t, c.state, refused.State)
				require.Contains(t, err.Error(), string(c.state))
			})
		}
	})
}

func TestSenderExpiresWithItsKey(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		for _, c := range []struct {
			expires, grace time.Duration
			earlier        time.Duration
		}{
			{0, 0, 0},
			{time.Hour, 0, time.Hour},
			{0, time.Minute, time.Minute},
			{time.Hour, time.Minute, time.Minute},
			{time.Minute, time.Hour, time.Minute},
		} {
			k := s.issue(t, sqlkeys.NewKey{})
			if c.expires != 0 {
				s.byHand(t, k.Key.ID, "expires_at", int(c.expires.Milliseconds()))
			}
			if c.grace != 0 {
				s.byHand(t, k.Key.ID, "grace_until", int(c.grace.Milliseconds()))
			}
			stored, err := s.Key(t.Context(), k.Key.ID)
			require.NoError(t, err)
			got, err := s.Validate(t.Context(), k.Credentials)
			require.NoError(t, err)
			switch c.earlier {
			case 0:
				require.Zero(t, got.Expires)
			case c.expires:
				require.Equal(t, stored.ExpiresAt, got.Expires)
			default:
				require.Equal(t, stored.GraceUntil, got.Expires)
			}
		}
	})
}

func TestUnknownKeyDoesNotRevealSenders(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		sender := s.sender(t)
		_, known := s.Validate(t.Context(), senderauth.Credentials{SenderID: sender, APIKey: uuid.NewString()})
		require.ErrorIs(t, known, senderauth.ErrInvalidKey)
		_, unknown := s.Validate(t.Context(), senderauth.Credentials{SenderID: uuid.NewString(), APIKey: uuid.NewString()})
		require.Equal(t, known, unknown, "without an active key, a client cannot tell whether a sender exists")
	})
}

func TestStoredTextsAreNotKeys(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		k := s.issue(t, sqlkeys.NewKey{Format: sqlkeys.FormatPrefixed})
		_, err := s.Validate(t.Context(), k.Credentials)
		require.NoError(t, err)
		var stored []byte
		require.NoError(t, s.db.QueryRow(`SELECT digest FROM sqlkeys_keys`).Scan(&stored))
		require.Len(t, stored, 32)
		for _, text := range []string{string(stored), k.Key.ID, k.Credentials.APIKey + "a", strings.ToUpper(k.Credentials.APIKey), ""} {
			_, err := s.Validate(t.Context(), senderauth.Credentials{SenderID: k.Key.SenderID, APIKey: text})
			require.ErrorIs(t, err, senderauth.ErrInvalidKey)
		}
	})
}

func TestDisabledSenderIsRefused(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		k := s.issue(t, sqlkeys.NewKey{})
		other := s.sender(t)
		require.NoError(t, s.DisableSender(t.Context(), k.Key.SenderID))

		_, err := s.Validate(t.Context(), k.Credentials)
		require.ErrorIs(t, err, senderauth.ErrInvalidSender)
		require.EqualError(t, err, "sqlkeys: sender "+k.Key.SenderID+" is disabled: senderauth: invalid sender")
		_, err = s.Validate(t.Context(), senderauth.Credentials{APIKey: k.Credentials.APIKey})
		require.ErrorIs(t, err, senderauth.ErrInvalidSender)
		_, err = s.Validate(t.Context(), senderauth.Credentials{SenderID: other, APIKey: k.Credentials.APIKey})
		require.ErrorIs(t, err, senderauth.ErrKeyMismatch)
		_, err = s.Validate(t.Context(), senderauth.Credentials{SenderID: k.Key.SenderID, APIKey: uuid.NewString()})
		require.ErrorIs(t, err, senderauth.ErrInvalidKey, "only an active key learns of it")

		require.NoError(t, s.EnableSender(t.Context(), k.Key.SenderID))
		_, err = s.Validate(t.Context(), k.Credentials)
		require.NoError(t, err)
	})
}

// A row that cannot be read is an outage, too.
func TestOutageIsNotARefusal(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		k := s.issue(t, sqlkeys.NewKey{})
		_, err := s.db.Exec(`UPDATE sqlkeys_senders SET limits = '{"default":"many"}'`)
		require.NoError(t, err)
		outage(t, s, k)
		_, err = s.db.Exec(`ALTER TABLE sqlkeys_keys RENAME TO sqlkeys_gone`)
		require.NoError(t, err)
		outage(t, s, k)
	})
}

func outage(t *testing.T, s fixture, k sqlkeys.Issued) {
	_, err := s.Validate(t.Context(), k.Credentials)
	require.Error(t, err)
	for _, refusal := range []error{senderauth.ErrInvalidKey, senderauth.ErrKeyMismatch, senderauth.ErrInvalidSender} {
		require.NotErrorIs(t, err, refusal)
	}
	require.NotContains(t, err.Error(), k.Credentials.APIKey[:8])
}

func TestLookupTriesEveryPepper(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		first, second := []byte("first pepper, 16+"), []byte("second pepper 16+")
		plain := open(t, source, sqlkeys.Config{})
		a := plain.issue(t, sqlkeys.NewKey{})
		one := open(t, source, sqlkeys.Config{Peppers: [][]byte{first, nil}})
		b := one.issue(t, sqlkeys.NewKey{})
		two := open(t, source, sqlkeys.Config{Peppers: [][]byte{second, first, {}}})
		c := two.issue(t, sqlkeys.NewKey{})
		last := open(t, source, sqlkeys.Config{Peppers: [][]byte{second}})

		for _, x := range []struct {
			store   fixture
			accepts []bool
		}{
			{plain, []bool{true, false, false}},
			{one, []bool{true, true, false}},
			{two, []bool{true, true, true}},
			{last, []bool{false, false, true}},
		} {
			for i, k := range []sqlkeys.Issued{a, b, c} {
				_, err := x.store.Validate(t.Context(), k.Credentials)
				if x.accepts[i] {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, senderauth.ErrInvalidKey)
				}
			}
		}
		// A key that is stored under an older pepper is not stored a second time.
		adopted, err := two.Adopt(t.Context(), a.Credentials)
		require.NoError(t, err)
		require.Equal(t, a.Key.ID, adopted.ID)
	})
}

func TestGuardAcceptsPrefixedKeys(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		k := s.issue(t, sqlkeys.NewKey{Format: sqlkeys.FormatPrefixed})
		keys, err := senderauth.NewCache(s, senderauth.CacheConfig{})
		require.NoError(t, err)
		guard, err := senderauth.New(keys, senderauth.Config{
			Limits:   map[string]senderauth.Limit{"default": senderauth.PerMinute(100)},
			CheckKey: s.CheckKey,
		})
		require.NoError(t, err)
		alone, err := senderauth.New(keys, senderauth.Config{
			Limits:   map[string]senderauth.Limit{"default": senderauth.PerMinute(100)},
			CheckKey: s.CheckKey,
			KeyOnly:  true,
		})
		require.NoError(t, err)
		request := func(g *senderauth.Guard, sender, key string) (int, string) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("x-api-key", key)
			if sender != "" {
				r.Header.Set("x-sender-id", sender)
			}
			w := httptest.NewRecorder()
			g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				who, _ := senderauth.SenderFrom(r.Context())
				w.Write([]byte(who.KeyID))
			})).ServeHTTP(w, r)
			return w.Code, w.Body.String()
		}
		code, body := request(guard, k.Key.SenderID, k.Credentials.APIKey)
		require.Equal(t, 200, code)
		require.Equal(t, k.Key.ID, body)
		code, body = request(alone, "", k.Credentials.APIKey)
		require.Equal(t, 200, code)
		require.Equal(t, k.Key.ID, body)

		lookups := keys.Stats().Lookups
		code, body = request(guard, k.Key.SenderID, k.Credentials.APIKey[:len(k.Credentials.APIKey)-1]+"!")
		require.Equal(t, 401, code)
		const refused = `{"status":401,"title":"Unauthorized","detail":"Invalid API credentials!","type":"about:blank"}`
		require.JSONEq(t, refused, body)
		require.Equal(t, lookups, keys.Stats().Lookups, "a wrong checksum causes no lookup")

		require.NoError(t, s.Revoke(t.Context(), k.Key.ID))
		keys.Forget(k.Key.SenderID)
		code, body = request(guard, k.Key.SenderID, k.Credentials.APIKey)
		require.Equal(t, 401, code)
		require.JSONEq(t, refused, body)
		_, err = keys.Validate(t.Context(), k.Credentials)
		var why *sqlkeys.RefusedError
		require.True(t, errors.As(err, &why))
		require.Equal(t, sqlkeys.Revoked, why.State)
	})
}

// The states are made by calls of the store. Only the passing of an hour is simulated, by
// editing the row.
func TestStoreIsAValidator(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		keys := make(map[senderauthtest.State]senderauth.Credentials)
		add := func(state senderauthtest.State, n sqlkeys.NewKey) sqlkeys.Issued {
			k := s.issue(t, n)
			keys[state] = k.Credentials
			return k
		}
		const hour = 3_600_000
		active := add(senderauthtest.Active, sqlkeys.NewKey{})
		add(senderauthtest.Second, sqlkeys.NewKey{SenderID: active.Key.SenderID})
		add(senderauthtest.Other, sqlkeys.NewKey{})
		retiring := add(senderauthtest.Expiring, sqlkeys.NewKey{})
		_, err := s.Rotate(t.Context(), retiring.Key.ID, sqlkeys.Rotation{Grace: time.Hour})
		require.NoError(t, err)
		disabled := add(senderauthtest.Disabled, sqlkeys.NewKey{})
		require.NoError(t, s.Disable(t.Context(), disabled.Key.ID))
		rotated := add(senderauthtest.Rotated, sqlkeys.NewKey{})
		_, err = s.Rotate(t.Context(), rotated.Key.ID, sqlkeys.Rotation{})
		require.NoError(t, err)
		expired := add(senderauthtest.Expired, sqlkeys.NewKey{ExpiresAt: time.Now().Add(time.Hour)})
		s.byHand(t, expired.Key.ID, "expires_at", -hour)
		add(senderauthtest.NotYet, sqlkeys.NewKey{NotBefore: time.Now().Add(time.Hour)})
		revoked := add(senderauthtest.Deleted, sqlkeys.NewKey{})
		require.NoError(t, s.Revoke(t.Context(), revoked.Key.ID))
		off := add(senderauthtest.DisabledSender, sqlkeys.NewKey{})
		require.NoError(t, s.DisableSender(t.Context(), off.Key.SenderID))
		both := add(senderauthtest.DisabledBoth, sqlkeys.NewKey{})
		require.NoError(t, s.Disable(t.Context(), both.Key.ID))
		require.NoError(t, s.DisableSender(t.Context(), both.Key.SenderID))

		cache, err := senderauth.NewCache(s, senderauth.CacheConfig{})
		require.NoError(t, err)
		for name, v := range map[string]senderauth.Validator{"store": s, "cached": cache} {
			t.Run(name, func(t *testing.T) {
				senderauthtest.TestValidator(t, senderauthtest.ValidatorConfig{Validator: v, Keys: keys})
			})
		}
	})
}

// A store remembers 10,000 keys that it has refused as revoked. A lookup keeps a key among
// them, even if the database has lost the revocation.
func TestRevokedKeyInUseStaysRemembered(t *testing.T) {
	const remembered = 10_000
	s := open(t, filepath.Join(t.TempDir(), "keys.db"), sqlkeys.Config{})
	sender := s.sender(t)
	ns := make([]sqlkeys.NewKey, remembered+1)
	for i := range ns {
		ns[i].SenderID = sender
	}
	keys, err := s.IssueAll(t.Context(), ns)
	require.NoError(t, err)
	_, err = s.db.Exec(`UPDATE sqlkeys_keys SET revoked_at = 1`)
	require.NoError(t, err)
	first, others := keys[0], keys[1:]
	require.ErrorIs(t, validate(t, s, first.Credentials), senderauth.ErrInvalidKey)
	_, err = s.db.Exec(`UPDATE sqlkeys_keys SET revoked_at = NULL WHERE id = $1`, first.Key.ID)
	require.NoError(t, err)
	for i, k := range others {
		require.ErrorIs(t, validate(t, s, k.Credentials), senderauth.ErrInvalidKey)
		if i == len(others)/2 {
			require.ErrorIs(t, validate(t, s, first.Credentials), senderauth.ErrInvalidKey)
		}
	}
	require.ErrorIs(t, validate(t, s, first.Credentials), senderauth.ErrInvalidKey)
}
