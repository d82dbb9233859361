-- KEYS are buckets of one sender. ARGV[i] is '<dddfd': the limit of KEYS[i] and
-- the parts to take from it. With one more ARGV nothing is taken. The reply is
-- whether all parts were taken (1) or none (0), and for each bucket its level
-- afterwards and for how many microseconds it has had it.
local taken = #ARGV == #KEYS
local buckets, needs = {}, {}
for i = 1, #KEYS do
	local b, need = load(KEYS[i], ARGV[i]), struct.unpack('<d', ARGV[i], 29)
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
