#!lua flags=allow-oom
-- KEYS[1]  the lease
-- ARGV[1]  the owner's token
-- reply    1 if it was the owner's and is gone, else 0
if redis.pcall('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
