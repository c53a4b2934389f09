#!lua
-- KEYS[1]  the resource: a hash with the fields "fence" (the newest token seen) and "value"
-- ARGV[1]  the writer's fencing token, in decimal
-- ARGV[2]  the value to write
-- ARGV[3]  "once": a token writes once; "again": its holder may write more than once
-- reply    1 if the value was written, 0 if the token is too old
--
-- The check that makes a lock correct: it is done where the data is, together with the write. Tokens
-- are compared as decimal strings, since Lua's numbers are exact to 2^53 only.
local fence, mode = ARGV[1], ARGV[3]
if not string.match(fence, '^[1-9]%d*$') or #fence > 20 then
  return redis.error_reply('ERR the fencing token is not a decimal number above 0')
end
if mode ~= 'once' and mode ~= 'again' then
  return redis.error_reply('ERR the third argument is neither once nor again')
end
local seen = redis.call('HGET', KEYS[1], 'fence')
if seen then
  if not string.match(seen, '^[1-9]%d*$') then
    return redis.error_reply('ERR the field fence of the resource is not a fencing token')
  end
  local older = #fence < #seen or (#fence == #seen and fence < seen)
  if older or (fence == seen and mode == 'once') then
    return 0
  end
end
redis.call('HSET', KEYS[1], 'fence', fence, 'value', ARGV[2])
return 1
