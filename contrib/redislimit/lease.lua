-- KEYS are buckets of one sender; ARGV[i] is '<dddf', the limit of KEYS[i], and
-- '<ddddddddd': tokens that are needed now, tokens to lease besides, how long
-- in microseconds, and for each of two lots when it lapses, how many of its
-- tokens were spent, and how many are given back. What is needed is taken all
-- or nothing, and only with it is anything leased. The reply is whether it was
-- taken, the time, and for each bucket its level, for how many microseconds that
-- has been so, the tokens leased, and when they lapse.
local n = #KEYS
local take = true
local state, reply = {}, {0, clock}
for i = 1, n do
	local arg = ARGV[i]
	local perToken, perTick, full, tick = struct.unpack('<dddf', arg)
	local need, extra, term, ta, sa, ba, tb, sb, bb = struct.unpack('<ddddddddd', arg, 29)
	local level, last, t1, n1, t2, n2, changed = load(KEYS[i], arg, perToken, perTick, full, tick)
	local function settle(t, spent, back)
		if spent + back == 0 then
			return
		elseif n1 > 0 and t == t1 then
			n1 = math.max(n1 - spent - back, 0)
		elseif n2 > 0 and t == t2 then
			n2 = math.max(n2 - spent - back, 0)
		else
			return
		end
		-- Leased by a larger limit, they may not all have room.
		level = math.min(level + back * perToken, math.max(full - (n1 + n2) * perToken, 0))
		changed = true
	end
	settle(ta, sa, ba)
	settle(tb, sb, bb)
	take = take and level >= need * perToken
	state[i] = {perToken, perTick, full, tick, need, extra, term, level, last, t1, n1, t2, n2, changed}
end
if take then
	reply[1] = 1
end
for i = 1, n do
	local perToken, perTick, full, tick, need, extra, term, level, last, t1, n1, t2, n2, changed = unpack(state[i])
	local leased, lapse = 0, 0
	if take then
		level = level - need * perToken
		leased = math.min(extra, math.floor(level / perToken))
		changed = changed or need + leased > 0
	end
	if leased > 0 then
		level = level - leased * perToken
		if n2 == 0 then
			t2, n2 = math.max(clock + term, n1 > 0 and t1 or 0), leased
		elseif t2 >= clock + term / 2 then
			n2 = n2 + leased
		else
			-- Two lots are all there are, unless instances lease for
			-- different terms: then the earlier one lapses with the later.
			t1, n1 = t2, n1 + n2
			t2, n2 = math.max(clock + term, t1), leased
		end
		lapse = t2
	end
	reply[4 * i - 1], reply[4 * i], reply[4 * i + 1], reply[4 * i + 2] = level, clock - last, leased, lapse
	if changed then
		save(KEYS[i], ARGV[i], level, last, perTick, full, tick, t1, n1, t2, n2)
	end
end
return reply
