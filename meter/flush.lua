#!lua
-- KEYS[1]  the day's hash
-- KEYS[2]  the number of the last batch of this process
-- ARGV[1]  the batch's number
-- ARGV[2]  how long the day is kept, ms
-- ARGV[3]  how long KEYS[2] is kept, ms
-- ARGV[4]  for how long was counted, ms
-- ARGV[5..]  a field, its count, and so on
-- reply    1; 0 if the batch was there already: counts are added once
if tonumber(ARGV[1]) <= tonumber(redis.call('GET', KEYS[2]) or '0') then
  return 0
end
for i = 5, #ARGV, 2 do
  local was = redis.call('HGET', KEYS[1], ARGV[i])
  if was and not tonumber(was) then
    return redis.error_reply('ERR the count of ' .. ARGV[i] .. ' is no number: nothing was added')
  end
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSETNX', KEYS[1], '@first', string.format('%.0f', now - tonumber(ARGV[4])))
redis.call('HSET', KEYS[1], '@last', string.format('%.0f', now))
for i = 5, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
return 1
