#!lua flags=allow-oom
-- KEYS[1]  the lease
-- ARGV[1]  the owner's token
-- ARGV[2]  its new time to live, ms
-- reply    1 if it was the owner's and lives on, 0 if somebody else has it, -1 if nobody has
--
-- A lease that is gone is never made again: another owner may have come and gone meanwhile.
local owner = redis.pcall('GET', KEYS[1])
if owner == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return owner and 0 or -1
