#!lua flags=allow-oom
-- Says that a worker still works on jobs.
-- KEYS: running leases jobs
-- ARGV: token of the lease, lease in ms, ids
-- Returns per id 1, or 0 where somebody else has it, or 2 where Redis has lost the job, so that nobody else can have it.
local time = redis.call("TIME")
local deadline = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2])
local out = {}
for place = 3, #ARGV do
  if redis.call("HGET", KEYS[2], ARGV[place]) == ARGV[1] then
    redis.call("ZADD", KEYS[1], deadline, ARGV[place])
    table.insert(out, 1)
  else
    table.insert(out, redis.call("HEXISTS", KEYS[3], ARGV[place]) == 1 and 0 or 2)
  end
end
return out
