-- KEYS are buckets of one sender. ARGV[i] is '<dddfd': the limit of KEYS[i] and
-- the parts to take from it. With one more ARGV nothing is taken. The reply is
-- whether all parts were taken (1) or none (0), and for each bucket its level
-- afterwards and for how many microseconds it has had it.
local taken = #ARGV == #KEYS
local buckets, needs = {}, {}
for i = 1, #KEYS do
	buckets[i], needs[i] = load(KEYS[i], ARGV[i]), struct.unpack('<d', ARGV[i], 29)
	taken = taken and buckets[i].level >= needs[i]
end
local reply = {taken and 1 or 0}
for i, b in ipairs(buckets) do
	if taken and needs[i] > 0 then
		b.level = b.level - needs[i]
		b.changed = true
	end
	save(b)
	reply[2 * i], reply[2 * i + 1] = b.level, clock - b.last
end
return reply
