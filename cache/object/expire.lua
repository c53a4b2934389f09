#!lua flags=allow-oom
-- KEYS[1]  the object
-- ARGV[1]  the field
-- ARGV[2]  its time to live, ms
-- reply    1 if it is set; 0 if there is no such field, or no object
return redis.call('HPEXPIRE', KEYS[1], ARGV[2], 'FIELDS', 1, ARGV[1])[1] == 1 and 1 or 0
