-- A bucket is a string: '<dddf' its limit, '<dd' the level in parts and the
-- time in microseconds at which that was so, and, while tokens are leased,
-- '<dddd' when each of two lots lapses and how many tokens it has. The whole
-- arithmetic is on whole numbers below 2^53.
local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]

local function refill(level, last, to, perTick, tick, cap)
	if to <= last then
		return level, last
	end
	local ticks = math.floor((to - last) / tick)
	level = level + ticks * perTick
	if level >= cap then
		return cap, to
	end
	-- What has passed of the running tick is not lost, nor does it fill the
	-- bucket beyond its brim.
	return level, to - math.min(to - last - ticks * tick, math.floor((cap - level) * tick / perTick))
end

-- load returns a bucket as it is now by the limit in arg. An older time than
-- the bucket's leaves it as it is. Leased tokens keep their place in the
-- bucket: until they lapse it does not fill up behind them.
local function load(key, arg, perToken, perTick, full, tick)
	local v = redis.call('GET', key)
	if not v then
		return full, clock, 0, 0, 0, 0, false
	end
	if #v ~= 44 and #v ~= 76 then
		error({err = 'NOBUCKET ' .. key .. ' holds something else'})
	end
	local level, last = struct.unpack('<dd', v, 29)
	local t1, n1, t2, n2 = 0, 0, 0, 0
	if #v == 76 then
		t1, n1, t2, n2 = struct.unpack('<dddd', v, 45)
	end
	local changed = string.sub(v, 1, 28) ~= string.sub(arg, 1, 28)
	local p, q, f, s = perToken, perTick, full, tick
	if changed then
		p, q, f, s = struct.unpack('<dddf', v)
	end
	if n1 > 0 and t1 <= clock then
		level, last = refill(level, last, t1, q, s, math.max(f - (n1 + n2) * p, 0))
		n1 = 0
	end
	if n2 > 0 and t2 <= clock then
		level, last = refill(level, last, t2, q, s, math.max(f - (n1 + n2) * p, 0))
		n2 = 0
	end
	level, last = refill(level, last, clock, q, s, math.max(f - (n1 + n2) * p, 0))
	if changed then
		local tokens = math.floor(level / p)
		local part = (level - tokens * p) * perToken
		level = tokens * perToken + math.max(math.floor(part / p) - (part < 2 ^ 53 and 0 or 1), 0)
		level = math.max(math.min(level, full - (n1 + n2) * perToken), 0)
		last = math.max(last, clock)
	end
	return level, last, t1, n1, t2, n2, changed
end

-- save keeps a bucket for a second longer than it needs to be full again, which
-- is after the leases lapse: from then on there is no difference between it and
-- none.
local function save(key, arg, level, last, perTick, full, tick, t1, n1, t2, n2)
	local us = math.ceil((full - level) / perTick) * tick
	local v = string.sub(arg, 1, 28) .. struct.pack('<dd', level, last)
	if n1 + n2 > 0 then
		v = v .. struct.pack('<dddd', t1, n1, t2, n2)
		us = us + math.max(t1 - clock, t2 - clock, 0)
	end
	redis.call('SET', key, v, 'PX', math.min(math.ceil(us / 1000) + 1000, 1e15))
end
