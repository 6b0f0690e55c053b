#!lua flags=allow-oom
-- Takes jobs for a worker, after putting back what lost workers held and what has become due.
-- KEYS: ready jobs later running leases attempts errors dead
-- ARGV: at most so many, at most so many at a time, lease in ms, token of the lease, attempts, largest document in bytes
-- Returns when to look again (ms, -1 never, 0 at once), jobs that are left, workers that were lost, jobs that were given up,
-- jobs that were queued and are not there any more; then per job its id, its attempt and its document.
local ready, jobs, later, running, leases, attempts, errors, dead = unpack(KEYS)
local most, cap, lease, token, tries, largest =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lost, given_up, vanished = 0, 0, 0

local function give_up(id, why)
  redis.call("HSET", errors, id, why)
  redis.call("ZADD", dead, now, id)
  given_up = given_up + 1
end

for _, id in ipairs(redis.call("ZRANGE", running, "-inf", now, "BYSCORE", "LIMIT", 0, 100)) do
  redis.call("ZREM", running, id)
  redis.call("HDEL", leases, id)
  lost = lost + 1
  if tonumber(redis.call("HGET", attempts, id) or "0") >= tries then
    give_up(id, "the worker that had it was lost, " .. tries .. " times")
  else
    redis.call("LPUSH", ready, id)
  end
end
for _, id in ipairs(redis.call("ZRANGE", later, "-inf", now, "BYSCORE", "LIMIT", 0, 1000)) do
  redis.call("ZREM", later, id)
  redis.call("RPUSH", ready, id)
end

local out = {}
local room = math.min(most, cap - redis.call("ZCARD", running))
while room > 0 do
  local id = redis.call("LPOP", ready)
  if not id then break end
  local size = redis.call("HSTRLEN", jobs, id)
  if size > largest then
    give_up(id, "its " .. size .. " bytes are more than " .. largest)
  elseif size > 0 then
    local attempt = redis.call("HINCRBY", attempts, id, 1)
    redis.call("ZADD", running, now + lease, id)
    redis.call("HSET", leases, id, token)
    table.insert(out, id)
    table.insert(out, attempt)
    table.insert(out, redis.call("HGET", jobs, id))
    room = room - 1
  else
    vanished = vanished + 1
  end
end

local left = redis.call("LLEN", ready)
local again = -1
if left > 0 and redis.call("ZCARD", running) < cap then
  again = 0
else
  local first = redis.call("ZRANGE", later, 0, 0, "WITHSCORES")
  if first[2] then again = tonumber(first[2]) end
  first = redis.call("ZRANGE", running, 0, 0, "WITHSCORES")
  if first[2] and (again < 0 or tonumber(first[2]) < again) then again = tonumber(first[2]) end
end
return { again, left, lost, given_up, vanished, unpack(out) }
