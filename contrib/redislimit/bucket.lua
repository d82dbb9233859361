-- A bucket is a string in Redis: '<dddf' is its limit, '<dd' the level in parts
-- and the time in microseconds at which the bucket had it. While tokens are
-- leased, '<dddd' follows: for each of two leases when it lapses and how many
-- tokens it has. All arithmetic is on whole numbers below 2^53.
local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]

-- room returns the level up to which a bucket fills. Leased tokens keep their place in the
-- bucket until they lapse.
local function room(b)
	local e = b.leases
	return e and math.max(b.full - (e.n1 + e.n2) * b.perToken, 0) or b.full
end

-- refill brings a bucket forward to a time. It ignores a time before the bucket's own.
local function refill(b, to)
	if to <= b.last then
		return
	end
	local ticks = math.floor((to - b.last) / b.tick)
	b.level = b.level + ticks * b.perTick
	b.last = b.last + ticks * b.tick -- keeps the fraction of the next tick
	local most = room(b)
	if b.level >= most then
		b.level, b.last = most, to
	end
end

-- adopt moves a bucket to another limit. Its tokens stay, up to the new burst.
local function adopt(b, perToken, perTick, full, tick)
	local tokens = math.floor(b.level / b.perToken)
	local part = (b.level - tokens * b.perToken) * perToken
	local inexact = part < 2 ^ 53 and 0 or 1
	b.level = tokens * perToken + math.max(math.floor(part / b.perToken) - inexact, 0)
	b.perToken, b.perTick, b.full, b.tick = perToken, perTick, full, tick
	b.level = math.min(b.level, room(b))
	b.last = math.max(b.last, clock)
	b.changed = true
end

-- rewind corrects a bucket that is further ahead of the clock than the time that fills it: the
-- clock was set back, or a replica with a slower clock was promoted. The bucket keeps its
-- level and refills from now on. It is stored even if nothing is taken, or each call would
-- start again. Instances stop using leases by their own clocks, so the leases lapse after
-- the longest time for which a bucket is leased (leaseTerm).
local function rewind(b)
	local fill = math.ceil(b.full / b.perTick) * b.tick
	if b.last <= clock + fill then
		return
	end
	b.last, b.changed = clock, true
	local e = b.leases
	if e then
		local longest = clock + math.ceil(fill / 4)
		e.t1, e.t2 = math.min(e.t1, longest), math.min(e.t2, longest)
	end
end

-- load returns a bucket as it is now, under the limit at the start of an argument. Without
-- leases a bucket has only eight fields: with a ninth, Lua doubles the table, and a call
-- takes 4 % more of Redis' instructions (callgrind).
local function load(key, arg)
	local perToken, perTick, full, tick = struct.unpack('<dddf', arg)
	local b = {
		limit = string.sub(arg, 1, 28), changed = false,
		perToken = perToken, perTick = perTick, full = full, tick = tick,
		level = full, last = clock,
	}
	local v = redis.call('GET', key)
	if not v then
		return b
	end
	if #v ~= 44 and #v ~= 76 then
		error({err = 'NOBUCKET ' .. key .. ' holds something else'})
	end
	b.level, b.last = struct.unpack('<dd', v, 29)
	if #v == 76 then
		local t1, n1, t2, n2 = struct.unpack('<dddd', v, 45)
		b.leases = {t1 = t1, n1 = n1, t2 = t2, n2 = n2}
	end
	local changed = string.sub(v, 1, 28) ~= b.limit
	if changed then
		b.perToken, b.perTick, b.full, b.tick = struct.unpack('<dddf', v)
	end
	if b.last > clock then
		rewind(b)
	end
	-- The room of a lease refills only from the time at which the lease lapsed. In a
	-- separate function this would take 6 % more of Redis' instructions for a call.
	local e = b.leases
	if e and e.n1 > 0 and e.t1 <= clock then
		refill(b, e.t1)
		e.n1 = 0
	end
	if e and e.n2 > 0 and e.t2 <= clock then
		refill(b, e.t2)
		e.n2 = 0
	end
	refill(b, clock)
	if changed then
		adopt(b, perToken, perTick, full, tick)
	end
	return b
end

-- pay takes parts that an instance admitted while it could not reach Redis. What the bucket
-- does not have was its refill beyond the burst.
local function pay(b, parts)
	b.level = math.max(b.level - parts, 0)
	b.changed = true
end

-- save stores a changed bucket until a second after it is full again, which is after its
-- leases lapse. A full bucket needs no key.
local function save(key, b)
	if not b.changed then
		return
	end
	local us = math.ceil((b.full - b.level) / b.perTick) * b.tick
	local v = b.limit .. struct.pack('<dd', b.level, b.last)
	local e = b.leases
	if e and e.n1 + e.n2 > 0 then
		v = v .. struct.pack('<dddd', e.t1, e.n1, e.t2, e.n2)
		us = us + math.max(e.t1 - clock, e.t2 - clock, 0)
	end
	-- Redis would format a number with %.17g, which takes 3 % more instructions.
	local ms = string.format('%d', math.min(math.ceil(us / 1000) + 1000, 1e15))
	redis.call('SET', key, v, 'PX', ms)
end

