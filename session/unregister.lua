#!lua flags=allow-oom
-- KEYS[1]  the registry of ends
-- KEYS[2]  its notes
-- ARGV[1..]  places of sessions
-- reply    1
for _, place in ipairs(ARGV) do
  redis.call('ZREM', KEYS[1], place)
  redis.call('HDEL', KEYS[2], place)
end
return 1
