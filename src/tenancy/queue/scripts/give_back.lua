#!lua flags=allow-oom
-- Gives tenants back after their turn.
-- KEYS: ring due held woken finish clock bell
-- ARGV: until when they were held (ms); then per tenant its name, its start tag, what its turn cost, and when it has
-- something to do again (ms, -1 never, 0 at once)
local ring, due, held, woken, finish, clock, bell = unpack(KEYS)
local virtual = tonumber(redis.call("GET", clock) or "0")
local more = false
for place = 2, #ARGV, 4 do
  local tenant, tag, again = ARGV[place], tonumber(ARGV[place + 1]) + tonumber(ARGV[place + 2]), tonumber(ARGV[place + 3])
  local until_when = redis.call("ZSCORE", held, tenant)
  -- Held too long, somebody else has it by now: it is theirs to place.
  if until_when and tonumber(until_when) == tonumber(ARGV[1]) then
    redis.call("ZREM", held, tenant)
    local noted = tonumber(redis.call("HGET", woken, tenant) or "-1")
    redis.call("HDEL", woken, tenant)
    if noted >= 0 and (again < 0 or noted < again) then again = noted end
    if tag > virtual then redis.call("HSET", finish, tenant, tag) else redis.call("HDEL", finish, tenant) end
    if again == 0 then
      redis.call("ZADD", ring, math.max(tag, virtual), tenant)
      more = true
    elseif again > 0 then
      redis.call("ZADD", due, again, tenant)
      more = more or noted == again
    end
  end
end
-- Whoever has nothing to do may take what is left.
if more or redis.call("ZCARD", ring) > 0 then
  redis.call("LPUSH", bell, 1)
  redis.call("LTRIM", bell, 0, 63)
end
return more and 1 or 0
