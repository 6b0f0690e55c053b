#!lua flags=allow-oom
-- Gives up everything that waits, and what lost workers held, for a tenant that is no more.
-- KEYS: ready jobs later errors dead running leases
-- ARGV: why, at most so many
-- Returns how many were given up, and how many are left.
local ready, jobs, later, errors, dead, running, leases = unpack(KEYS)
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local count, most = 0, tonumber(ARGV[2])
local function give_up(id)
  count = count + 1
  if redis.call("HEXISTS", jobs, id) == 1 then
    redis.call("HSET", errors, id, ARGV[1])
    redis.call("ZADD", dead, now, id)
  end
end
for _, id in ipairs(redis.call("ZRANGE", running, "-inf", now, "BYSCORE", "LIMIT", 0, most)) do
  redis.call("ZREM", running, id)
  redis.call("HDEL", leases, id)
  give_up(id)
end
while count < most do
  local id = redis.call("LPOP", ready)
  if not id then
    id = redis.call("ZPOPMIN", later)[1]
  end
  if not id then break end
  give_up(id)
end
return { count, redis.call("LLEN", ready) + redis.call("ZCARD", later) + redis.call("ZCARD", running) }
