-- KEYS are buckets of one sender, and after them its allowances. ARGV[1] is '<dd': how many
-- of KEYS are buckets, and 1 if nothing is to be taken. ARGV[i + 1] is about KEYS[i]. For a
-- bucket it is that of take.lua. For an allowance it is '<ddddddd': when the present
-- period starts and ends, in microseconds, its number, the tokens of the allowance, those
-- to take, those that were granted without Redis, and the number of the period of these.
-- The reply is whether all were taken (1) or none (0), the time in microseconds, and two
-- numbers for each key: for a bucket those of take.lua, and for an allowance the number
-- of the period that counts and the tokens used in it. If a period is not the present one by
-- the clock of Redis, nothing is changed, and the reply is -1 and the time.
--
-- An allowance is '<dd' in Redis: the number of the latest period in which any of it was used,
-- and the tokens used. That never goes back, even if the clock does.
local buckets, look = struct.unpack('<dd', ARGV[1])
for i = buckets + 1, #KEYS do
	local start, stop = struct.unpack('<dd', ARGV[i + 1])
	if clock < start or clock >= stop then
		return {-1, clock}
	end
end

-- afterwards is for how long a period is remembered after its end, in milliseconds: the
-- sender may move to a zone where it ends 26 hours later, and the clock be set back a day.
local afterwards = 50 * 3600 * 1000

-- used returns an allowance as it is now.
local function used(key, arg)
	local _, stop, period, most, need, owed, since = struct.unpack('<ddddddd', arg)
	local a = {stop = stop, period = period, most = most, need = need, tokens = 0, kept = false, changed = false}
	local v = redis.call('GET', key)
	if v then
		if #v ~= 16 then
			error({err = 'NOBUCKET ' .. key .. ' holds something else'})
		end
		local latest, tokens = struct.unpack('<dd', v)
		if latest >= period then
			a.kept, a.period, a.tokens = latest > period, latest, tokens
		end
	end
	if owed > 0 and since >= a.period then
		a.tokens, a.changed = a.tokens + owed, true
	end
	return a
end

-- record stores a changed allowance.
local function record(key, a)
	if not a.changed then
		return
	end
	local v = struct.pack('<dd', a.period, a.tokens)
	if a.kept then
		redis.call('SET', key, v, 'KEEPTTL') -- a later period than stop is the end of
	else
		redis.call('SET', key, v, 'PX', string.format('%d', math.ceil((a.stop - clock) / 1000) + afterwards))
	end
end

local taken = look == 0
local all, needs = {}, {}
for i = 1, #KEYS do
	local arg = ARGV[i + 1]
	if i <= buckets then
		local b = load(KEYS[i], arg)
		local need, owed = struct.unpack('<dd', arg, 29)
		if owed > 0 then
			pay(b, owed)
		end
		taken = taken and b.level >= need
		all[i], needs[i] = b, need
	else
		local a = used(KEYS[i], arg)
		taken = taken and (a.need == 0 or a.tokens + a.need <= a.most)
		all[i], needs[i] = a, a.need
	end
end
local reply = {taken and 1 or 0, clock}
for i = 1, #KEYS do
	local x = all[i]
	local takes = taken and needs[i] > 0
	x.changed = x.changed or takes
	if i <= buckets then
		x.level = takes and x.level - needs[i] or x.level
		save(KEYS[i], x)
		reply[2 * i + 1], reply[2 * i + 2] = x.level, clock - x.last
	else
		x.tokens = takes and x.tokens + needs[i] or x.tokens
		record(KEYS[i], x)
		reply[2 * i + 1], reply[2 * i + 2] = x.period, x.tokens
	end
end
return reply
