#!lua
-- Queues one job.
-- KEYS: ready jobs later unique attempts errors dead
-- ARGV: id, document, delay in ms, name under which it is unique or ""
-- Returns the id that the job has, and 1 if it is new.
local id, document, delay, unique = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
if unique ~= "" then
  local there = redis.call("HGET", KEYS[4], unique)
  if there and redis.call("HEXISTS", KEYS[2], there) == 1 then
    -- What was given up makes room for the new one: it may say something else.
    if redis.call("ZREM", KEYS[7], there) == 0 then
      return { there, 0 }
    end
    redis.call("HDEL", KEYS[2], there)
    redis.call("HDEL", KEYS[5], there)
    redis.call("HDEL", KEYS[6], there)
  end
  redis.call("HSET", KEYS[4], unique, id)
end
redis.call("HSET", KEYS[2], id, document)
if delay > 0 then
  local time = redis.call("TIME")
  redis.call("ZADD", KEYS[3], time[1] * 1000 + math.floor(time[2] / 1000) + delay, id)
else
  redis.call("RPUSH", KEYS[1], id)
end
return { id, 1 }
