-- KEYS are buckets of one sender. ARGV[i] is '<dddfdd': the limit of KEYS[i], the parts to
-- take from it, and those that were admitted without it. With one more ARGV nothing is taken. The reply is
-- whether all parts were taken (1) or none (0), and for each bucket its level
-- afterwards and for how many microseconds it has had it.
local taken = #ARGV == #KEYS
local buckets, needs = {}, {}
for i = 1, #KEYS do
	local b = load(KEYS[i], ARGV[i])
	local need, owed = struct.unpack('<dd', ARGV[i], 29)
	if owed > 0 then
		pay(b, owed)
	end
	taken = taken and b.level >= need
	buckets[i], needs[i] = b, need
end
local reply = {taken and 1 or 0}
for i = 1, #KEYS do
	local b = buckets[i]
	if taken and needs[i] > 0 then
		b.level = b.level - needs[i]
		b.changed = true
	end
	save(KEYS[i], b)
	reply[2 * i], reply[2 * i + 1] = b.level, clock - b.last
end
return reply
