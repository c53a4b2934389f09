#!lua flags=allow-oom
-- KEYS[1]  who fills the entry, as begin.lua has it
-- ARGV[1]  token of who writes
-- ARGV[2]  how long the token lasts from now on, ms
-- reply    1, or 0 if the token has gone
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local owner = redis.pcall('GET', KEYS[1])
if type(owner) ~= 'string' or string.sub(owner, 1, 1) ~= 'w' then
  return 0
end
local mine = string.format('%s=%.0f ', ARGV[1], now + ARGV[2])
local renewed, found = string.gsub(owner, ARGV[1] .. '=%d+ ', mine)
if found == 0 then
  return 0
end
local last = 0
for ends in string.gmatch(renewed, '=(%d+)') do
  last = math.max(last, tonumber(ends))
end
redis.call('SET', KEYS[1], renewed, 'PX', string.format('%.0f', last - now))
return 1
