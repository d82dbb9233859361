package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// examples holds the arguments that the help of each command shows.
var examples = map[string][]string{
	"migrate":        {"migrate -db keys.db", "migrate -db postgres://app@db/app"},
	"sender create":  {"sender create -limit default=200/1m:50 -limit messages=60/1m"},
	"sender edit":    {"sender edit SENDER -name Acme -meta plan=pro", "sender edit SENDER -unset plan"},
	"sender delete":  {"sender delete SENDER"},
	"sender limit":   {"sender limit SENDER -limit default=2000/1m:500", "sender limit SENDER -limit messages=blocked"},
	"sender disable": {"sender disable SENDER"},
	"sender enable":  {"sender enable SENDER"},
	"sender show":    {"sender show SENDER"},
	"sender list":    {"sender list -json", "sender list -state disabled"},
	"key issue":      {"key issue -sender SENDER -name web -expires 90d -out .env", "key issue -sender SENDER -scope orders:read -scope orders:write -network 10.0.0.0/8", "key issue -sender SENDER -format prefixed -prefix acme"},
	"key edit":       {"key edit KEYID -name web -expires 90d", "key edit KEYID -expires never -meta team=api -unset owner"},
	"key scope":      {"key scope KEYID orders:read orders:write", "key scope KEYID -all", "key scope KEYID -none"},
	"key network":    {"key network KEYID 10.0.0.0/8 2001:db8::1", "key network KEYID -any"},
	"key rotate":     {"key rotate KEYID -grace 24h -out next.env", "key rotate KEYID -grace 0s -format prefixed -prefix acme"},
	"key identify":   {"key identify < leaked.txt"},
	"key import":     {"key import -dry-run < keys.csv", "key import < keys.csv"},
	"key disable":    {"key disable KEYID"},
	"key enable":     {"key enable KEYID"},
	"key show":       {"key show KEYID -json"},
	"key revoke":     {"key revoke KEYID", "key revoke KEYID -yes"},
	"key list":       {"key list -sender SENDER", "key list -expiring 14d", "key list -state revoked"},
	"usage":          {"usage -sender SENDER -since 30d", "usage -key KEYID -since 2026-01-31 -json", "usage -format csv -since 2026-10-01 -until 2026-11-01"},
	"prune":          {"prune -audit-older-than 400d -usage-older-than 90d -dry-run", "prune -usage-older-than 90d"},
	"audit":          {"audit -key KEYID"},
}

func addExamples(root *cobra.Command) {
	for path, lines := range examples {
		cmd, _, err := root.Find(strings.Fields(path))
		if err != nil {
			panic(err) // the table names a command that does not exist
		}
		cmd.Example = "  senderkeys " + strings.Join(lines, "\n  senderkeys ")
	}
}
