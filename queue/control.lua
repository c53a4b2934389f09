#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the queue was deleted
-- ARGV[1]  pause, resume, purge or delete
-- reply    {-2 if there is no queue, -1 if it was deleted}; else {1}, or {0} if it is to be called again to go on
local base = string.sub(KEYS[1], 1, -5)
local what = ARGV[1]
if redis.call('HEXISTS', KEYS[1], 'fifo') == 0 then
  return {redis.call('EXISTS', KEYS[2]) - 2}
end
if what == 'pause' or what == 'resume' then
  redis.call('HSET', KEYS[1], 'paused', what == 'pause' and '1' or '0')
else
  -- The lists of the groups a thousand at a time, so that nobody waits for long.
  local groups = redis.call('ZRANGE', base .. 'heads', 0, 999)
  if #groups > 0 then
    redis.call('ZREM', base .. 'heads', unpack(groups))
    for i, group in ipairs(groups) do
      groups[i] = base .. 'g:' .. group
    end
    redis.call('UNLINK', unpack(groups))
  end
  if #groups == 1000 then
    return {0}
  end
  for _, part in ipairs({'ready', 'msg', 'flight', 'delay', 'groups', 'locked', 'held', 'heads', 'unique', 'dead', 'why', 'tries', 'triesq', 'rates'}) do
    redis.call('UNLINK', base .. part)
  end
  redis.call('HSET', KEYS[1], 'n', 0, 'size', 0)
end
if what == 'resume' or what == 'delete' then -- who waits is to see it
  for _ = 1, 1000 do
    local who = redis.call('ZPOPMIN', base .. 'wait')
    if not who[1] then
      break
    end
    local channel, id = string.match(who[1], '^(%S+) (%S+)$')
    redis.pcall('PUBLISH', channel, id)
  end
end
if what == 'delete' then
  for _, part in ipairs({'meta', 'dedup', 'dedupq', 'moved', 'cron', 'wait'}) do
    redis.call('UNLINK', base .. part)
  end
  redis.call('SET', KEYS[2], '', 'PX', 60000)
end
return {1}
