#!lua flags=allow-oom
-- Removes failed jobs for good, and lets others have the names under which they were unique.
-- KEYS: jobs attempts errors dead unique progress
-- ARGV: ids; none: all that failed, at most a thousand
-- Returns how many.
local jobs, attempts, errors, dead, unique, progress = unpack(KEYS)
local ids = ARGV
if #ids == 0 then ids = redis.call("ZRANGE", dead, 0, 999) end
local count = 0
for _, id in ipairs(ids) do
  -- Only those that failed: one that is tried again meanwhile is somebody's.
  if redis.call("ZREM", dead, id) == 1 then
    local document = redis.call("HGET", jobs, id)
    -- What cannot be read has no name.
    local read, job = pcall(cjson.decode, document or "")
    local name = read and type(job) == "table" and job.unique
    if type(name) == "string" and redis.call("HGET", unique, name) == id then
      redis.call("HDEL", unique, name)
    end
    for _, key in ipairs({ jobs, attempts, errors, progress }) do
      redis.call("HDEL", key, id)
    end
    count = count + 1
  end
end
return count
