#!lua
-- KEYS[1]  the entry
-- KEYS[2]  who fills it: a token
-- KEYS[3]  who waits for it: channel, a space, id
-- ARGV[1]  token of who asks
-- ARGV[2]  how long the token lasts, ms
-- ARGV[3]  an entry that lives for longer than so many ms is not filled
-- ARGV[4]  channel, a space, id that wakes who asks; empty for none
-- reply    {1 taken, 0 somebody else fills, 2 no need; the entry or nil; its PTTL; who fills; for how long, ms}
local entry = redis.pcall('GET', KEYS[1])
local left = -2
if type(entry) == 'string' then
  left = redis.call('PTTL', KEYS[1])
  if left > tonumber(ARGV[3]) then
    return {2, entry, left, '', 0}
  end
else
  entry = false
end
local owner = redis.pcall('GET', KEYS[2])
if type(owner) ~= 'string' or (owner == '-' and not entry) then
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
  return {1, entry, left, ARGV[1], 0}
end
if ARGV[4] ~= '' and redis.call('SCARD', KEYS[3]) < 1000 then
  redis.call('SADD', KEYS[3], ARGV[4])
  redis.call('PEXPIRE', KEYS[3], 3000)
end
return {0, entry, left, owner, redis.call('PTTL', KEYS[2])}
