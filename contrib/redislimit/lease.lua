-- KEYS are buckets of one sender. ARGV[i] is '<dddf', the limit of KEYS[i], and
-- '<dddddddddd': the tokens needed now, the parts admitted without Redis, the additional tokens to lease and for how many
-- microseconds, and for each of two leases when it lapses, how many of its tokens were
-- spent, and how many are given back. The needed tokens are taken from all buckets or
-- from none, and tokens are leased only if they are taken. The reply is whether they were
-- taken, the time, and for each bucket its level, for how many microseconds it has had
-- it, the tokens leased, and when they lapse.

-- settle removes tokens from the lease that lapses at t. Those given back
-- return to the bucket, if there is room: they may be from a larger limit.
local function settle(b, t, spent, back)
	local e = b.leases
	if not e or spent + back == 0 then
		return
	elseif e.n1 > 0 and t == e.t1 then
		e.n1 = math.max(e.n1 - spent - back, 0)
	elseif e.n2 > 0 and t == e.t2 then
		e.n2 = math.max(e.n2 - spent - back, 0)
	else
		return -- it has lapsed
	end
	b.level = math.min(b.level + back * b.perToken, room(b))
	b.changed = true
end

-- lease leases whole tokens, as many as there are. It returns how many, and when
-- they lapse.
local function lease(b, wanted, term)
	local tokens = math.min(wanted, math.floor(b.level / b.perToken))
	if tokens == 0 then
		return 0, 0
	end
	b.level = b.level - tokens * b.perToken
	b.changed = true
	local e = b.leases
	if not e then
		e = {t1 = 0, n1 = 0, t2 = 0, n2 = 0}
		b.leases = e
	end
	if e.n2 == 0 then
		e.t2, e.n2 = math.max(clock + term, e.n1 > 0 and e.t1 or 0), tokens
	elseif e.t2 >= clock + term / 2 then
		e.n2 = e.n2 + tokens
	else
		-- This happens only if instances lease for different terms. There is room for two
		-- leases, so the earlier one then lapses with the later one.
		e.t1, e.n1 = e.t2, e.n1 + e.n2
		e.t2, e.n2 = math.max(clock + term, e.t1), tokens
	end
	return tokens, e.t2
end

local taken = true
local buckets, orders = {}, {}
for i = 1, #KEYS do
	local b = load(KEYS[i], ARGV[i])
	local need, owed, extra, term, t1, spent1, back1, t2, spent2, back2 = struct.unpack('<dddddddddd', ARGV[i], 29)
	settle(b, t1, spent1, back1)
	settle(b, t2, spent2, back2)
	if owed > 0 then
		pay(b, owed)
	end
	taken = taken and b.level >= need * b.perToken
	buckets[i], orders[i] = b, {need = need, extra = extra, term = term}
end
local reply = {taken and 1 or 0, clock}
for i = 1, #KEYS do
	local b, order = buckets[i], orders[i]
	local tokens, lapse = 0, 0
	if taken then
		b.level = b.level - order.need * b.perToken
		b.changed = b.changed or order.need > 0
		tokens, lapse = lease(b, order.extra, order.term)
	end
	save(KEYS[i], b)
	reply[4 * i - 1], reply[4 * i], reply[4 * i + 1], reply[4 * i + 2] = b.level, clock - b.last, tokens, lapse
end
return reply
