#!lua flags=allow-oom
-- KEYS[1]  the lease of a partition
-- ARGV[1]  the token of who wants it
-- ARGV[2]  for how long, ms
-- reply    1 if it is taken, 0 if somebody has it
--
-- A server without memory gives leases, too: what is there is to be read.
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
