#!lua flags=allow-oom
-- KEYS[1]  the lease
-- ARGV[1]  the owner's token
-- ARGV[2]  its new time to live, ms
-- reply    1 if it was the owner's and lives on, else 0
--
-- A lease that is gone is never made again: another owner may have come and gone meanwhile.
if redis.pcall('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
