#!lua flags=allow-oom
-- KEYS[1]  the entry
-- KEYS[2]  who fills it; while somebody writes: w, then . or, if several have written at once, !, then token=until when
--          (Unix ms) and a space for each
-- ARGV[1]  token of who writes
-- ARGV[2]  how long the token lasts, ms
-- reply    1, or 0 if somebody else writes too: then neither may store what it wrote
local time = redis.call('TIME')
local now, others, last = time[1] * 1000 + math.floor(time[2] / 1000), '', 0
local owner = redis.pcall('GET', KEYS[2])
if type(owner) == 'string' and string.sub(owner, 1, 1) == 'w' then
  for token, ends in string.gmatch(owner, '(%w+)=(%d+)') do
    if tonumber(ends) > now then
      others, last = others .. token .. '=' .. ends .. ' ', math.max(last, tonumber(ends))
    end
  end
end
local mine = now + ARGV[2]
last = math.max(last, mine)
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], string.format('w%s%s%s=%.0f ', others ~= '' and '!' or '.', others, ARGV[1], mine),
  'PX', string.format('%.0f', last - now))
return others == '' and 1 or 0
