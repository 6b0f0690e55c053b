#!lua flags=allow-oom
-- Takes the tenants whose turn it is.
-- KEYS: ring due held woken finish clock
-- ARGV: at most so many, for how long in ms
-- Returns until when they are held (ms), when to look again (ms, -1 never), how many wait in the ring; then per tenant its
-- name and its start tag.
local ring, due, held, woken, finish, clock = unpack(KEYS)
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local virtual = tonumber(redis.call("GET", clock) or "0")
local function enter(tenant)
  local tag = tonumber(redis.call("HGET", finish, tenant) or "0")
  redis.call("ZADD", ring, math.max(virtual, tag), tenant)
end
-- Whoever held these is lost.
for _, tenant in ipairs(redis.call("ZRANGE", held, "-inf", now, "BYSCORE", "LIMIT", 0, 1000)) do
  redis.call("ZREM", held, tenant)
  redis.call("HDEL", woken, tenant)
  enter(tenant)
end
for _, tenant in ipairs(redis.call("ZRANGE", due, "-inf", now, "BYSCORE", "LIMIT", 0, 1000)) do
  redis.call("ZREM", due, tenant)
  enter(tenant)
end
local deadline = now + tonumber(ARGV[2])
local taken = redis.call("ZPOPMIN", ring, ARGV[1])
for place = 1, #taken, 2 do
  redis.call("ZADD", held, deadline, taken[place])
  virtual = math.max(virtual, tonumber(taken[place + 1]))
end
if #taken > 0 then redis.call("SET", clock, virtual) end
local again = -1
for _, key in ipairs({ due, held }) do
  local first = redis.call("ZRANGE", key, 0, 0, "WITHSCORES")
  if first[2] and (again < 0 or tonumber(first[2]) < again) then again = tonumber(first[2]) end
end
return { deadline, again, redis.call("ZCARD", ring), unpack(taken) }
