#!lua flags=allow-oom
-- Says that tenants have something to do, now or later.
-- KEYS: ring due held woken bell
-- ARGV: pairs of tenant and delay in ms
-- A tenant that a worker holds is noted, and placed when the worker gives it back.
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rung = false
for place = 1, #ARGV, 2 do
  local tenant, at = ARGV[place], now + tonumber(ARGV[place + 1])
  if redis.call("ZSCORE", KEYS[3], tenant) then
    local noted = redis.call("HGET", KEYS[4], tenant)
    if not noted or tonumber(noted) > at then redis.call("HSET", KEYS[4], tenant, at) end
  elseif not redis.call("ZSCORE", KEYS[1], tenant) then
    redis.call("ZADD", KEYS[2], "LT", at, tenant)
    rung = true
  end
end
if rung then
  redis.call("LPUSH", KEYS[5], 1)
  redis.call("LTRIM", KEYS[5], 0, 63)
end
return rung and 1 or 0
