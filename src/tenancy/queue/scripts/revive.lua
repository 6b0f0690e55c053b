#!lua
-- Lets failed jobs be tried again, from their first attempt.
-- KEYS: ready jobs attempts errors dead
-- ARGV: ids
-- Returns how many.
local count = 0
for _, id in ipairs(ARGV) do
  if redis.call("ZREM", KEYS[5], id) == 1 and redis.call("HEXISTS", KEYS[2], id) == 1 then
    redis.call("HDEL", KEYS[3], id)
    redis.call("HDEL", KEYS[4], id)
    redis.call("RPUSH", KEYS[1], id)
    count = count + 1
  end
end
return count
