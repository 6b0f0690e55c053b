#!lua flags=allow-oom
-- Notes what became of one job, if the worker still has it.
-- KEYS: ready jobs later unique running leases attempts errors dead progress result
-- ARGV: token of the lease, id, outcome, detail, name under which it is unique or "", delay or expiry in ms
-- outcome: done (detail: its result), retry (why; after the delay), dead (why)
-- Returns 1, or 0 where somebody else has it, or 2 where there is no such job; and the jobs that are left.
local ready, jobs, later, unique, running, leases, attempts, errors, dead, progress, result = unpack(KEYS)
local token, id, outcome, detail, name, ms = unpack(ARGV)
if redis.call("HGET", leases, id) ~= token then
  local exists = redis.call("HEXISTS", jobs, id)
  if exists == 0 then redis.call("HDEL", progress, id) end
  return { exists == 1 and 0 or 2, redis.call("LLEN", ready) }
end
redis.call("HDEL", leases, id)
redis.call("ZREM", running, id)
redis.call("HDEL", progress, id)
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function forget(which)
  redis.call("HDEL", jobs, which)
  redis.call("HDEL", attempts, which)
  redis.call("HDEL", errors, which)
end

if outcome == "done" then
  forget(id)
  if detail ~= "" then
    redis.call("SET", result, detail, "PX", ms)
  end
  if name ~= "" and redis.call("HGET", unique, name) == id then
    redis.call("HDEL", unique, name)
  end
elseif outcome == "retry" then
  redis.call("HSET", errors, id, detail)
  redis.call("ZADD", later, now + tonumber(ms), id)
else
  redis.call("HSET", errors, id, detail)
  redis.call("ZADD", dead, now, id)
  -- The newest thousand are kept; the oldest have been among the failed ones for long.
  for _, old in ipairs(redis.call("ZRANGE", dead, 0, -1001)) do
    redis.call("ZREM", dead, old)
    forget(old)
  end
end
return { 1, redis.call("LLEN", ready) }
