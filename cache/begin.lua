#!lua flags=allow-oom
-- KEYS[1]  the entry
-- KEYS[2]  who fills it: a token
-- ARGV[1]  token of who writes; it begins with w
-- ARGV[2]  how long the token lasts, ms
-- reply    1, or 0 if somebody else writes too: then neither may store what it wrote
local owner = redis.pcall('GET', KEYS[2])
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return type(owner) == 'string' and string.sub(owner, 1, 1) == 'w' and 0 or 1
