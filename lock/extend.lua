#!lua flags=allow-oom
-- KEYS[1]  the owner's token
-- ARGV[1]  token of who extends
-- ARGV[2]  new time to live, ms
-- reply    1 if the lock was theirs and lives on, 0 if somebody else has it, -1 if nobody has
--
-- A lock that is gone is never made again: another owner may have come and gone meanwhile.
local holder = redis.pcall('GET', KEYS[1])
if holder == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return holder and 0 or -1
