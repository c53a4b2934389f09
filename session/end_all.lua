#!lua flags=allow-oom
-- KEYS[1]  the user's index
-- KEYS[2..]  sessions of the user
-- ARGV[1]  for how long it is remembered that they were ended, ms
-- reply    {how many there were, then the places to which others had moved}
local reply = {0}
for i = 2, #KEYS do
  local key = KEYS[i]
  local record = redis.call('GETRANGE', key, 0, 63)
  redis.call('ZREM', KEYS[1], string.match(key, '[^:]*$'))
  if record ~= '' and record ~= '-' then
    redis.call('SET', key, '-', 'PX', ARGV[1])
    local place = string.match(record, '^2([^\n]*)\n')
    if place then
      reply[#reply + 1] = place
    else
      reply[1] = reply[1] + 1
    end
  end
end
return reply
