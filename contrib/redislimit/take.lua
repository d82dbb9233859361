-- KEYS are buckets of one sender; ARGV[i] is '<dddfd': the limit of KEYS[i] and
-- the parts to take from it. One ARGV more: only look. The reply is whether all
-- was taken (1) or nothing (0), and of each bucket the level after it and the
-- microseconds for which that has been so.
local n = #KEYS
local take = #ARGV == n
local state, reply = {}, {0}
for i = 1, n do
	local arg = ARGV[i]
	local perToken, perTick, full, tick, need = struct.unpack('<dddfd', arg)
	local level, last, t1, n1, t2, n2, changed = load(KEYS[i], arg, perToken, perTick, full, tick)
	take = take and level >= need
	reply[2 * i], reply[2 * i + 1] = level, clock - last
	state[i] = {need, level, last, perTick, full, tick, t1, n1, t2, n2, changed}
end
if take then
	reply[1] = 1
end
for i = 1, n do
	local need, level, last, perTick, full, tick, t1, n1, t2, n2, changed = unpack(state[i])
	if take and need > 0 then
		level = level - need
		reply[2 * i] = level
		changed = true
	end
	if changed then
		save(KEYS[i], ARGV[i], level, last, perTick, full, tick, t1, n1, t2, n2)
	end
end
return reply
