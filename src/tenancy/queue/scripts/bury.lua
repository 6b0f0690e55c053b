#!lua flags=allow-oom
-- Gives up everything that waits, for a tenant that is no more.
-- KEYS: ready jobs later errors dead
-- ARGV: why, at most so many
-- Returns how many were given up, and how many are left.
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local count = 0
local function give_up(id)
  redis.call("HSET", KEYS[4], id, ARGV[1])
  redis.call("ZADD", KEYS[5], now, id)
  count = count + 1
end
while count < tonumber(ARGV[2]) do
  local id = redis.call("LPOP", KEYS[1])
  if not id then
    local first = redis.call("ZPOPMIN", KEYS[3])
    id = first[1]
  end
  if not id then break end
  give_up(id)
end
return { count, redis.call("LLEN", KEYS[1]) + redis.call("ZCARD", KEYS[3]) }
