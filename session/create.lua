#!lua
-- KEYS[1]  the session
-- ARGV[1]  idle timeout, ms
-- ARGV[2..]  the fields: name, value, name, value ...
-- reply    when it was created, Unix ms
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], '@created', now, unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return now
