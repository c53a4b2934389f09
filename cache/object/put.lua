#!lua
-- KEYS[1]  the object
-- ARGV[1]  the field
-- ARGV[2]  1 to store a value, 0 to remove the field
-- ARGV[3]  the value
-- ARGV[4]  1 if the field has to have the value ARGV[5] before, 0 if it must not be there, 2 if one of both, empty for any
-- ARGV[5]  that value
-- ARGV[6]  the field's own time to live, ms; 0 for none
-- reply    1 if it is done; 0 if the field has another value; -1 if there is no object
if redis.call('EXISTS', KEYS[1]) == 0 then
  return -1
end
if ARGV[4] ~= '' then
  local has = redis.call('HGET', KEYS[1], ARGV[1])
  if ARGV[4] == '1' and has ~= ARGV[5] or ARGV[4] == '0' and has or ARGV[4] == '2' and has and has ~= ARGV[5] then
    return 0
  end
end
if ARGV[2] == '1' then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  if ARGV[6] ~= '0' then
    redis.call('HPEXPIRE', KEYS[1], ARGV[6], 'FIELDS', 1, ARGV[1])
  end
elseif redis.call('HLEN', KEYS[1]) > 1 or redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  -- A hash without fields would be gone, and the object and its time to live with it.
  redis.call('HSET', KEYS[1], '@', '')
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return 1
