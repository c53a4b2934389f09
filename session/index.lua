#!lua flags=allow-oom
-- KEYS[1]  the user's index
-- reply    the sessions that have not ended: digest, until when (Unix ms), digest, until when ...
local time = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
return redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
