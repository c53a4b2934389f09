#!lua
-- KEYS[1]  the object
-- ARGV[1]  its time to live, ms; 0 for none
-- ARGV[2]  how many fields have a time to live of their own
-- ARGV[3..]  for each of those its name and that time, ms; then names and values of all fields
-- reply    1
--
-- All of it is replaced, whatever lay there.
redis.call('DEL', KEYS[1])
local own = tonumber(ARGV[2])
redis.call('HSET', KEYS[1], unpack(ARGV, 3 + 2 * own))
for i = 1, own do
  redis.call('HPEXPIRE', KEYS[1], ARGV[2 + 2 * i], 'FIELDS', 1, ARGV[1 + 2 * i])
end
if ARGV[1] ~= '0' then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return 1
