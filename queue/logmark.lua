#!lua flags=allow-oom
-- KEYS[1]  the partition's settings and counters; its other keys have the same name with another last part
-- KEYS[2]  is there for a minute after the log was deleted
-- ARGV[1]  the group
-- ARGV[2]  the token of the owner of the partition
-- ARGV[3]  the consumer's name
-- ARGV[4..]  for each entry its id, how often it was delivered, and what is known of its deliveries if it stands aside, else empty
-- reply    {-1} if the log was deleted, {-4} if the partition is another's, {-3} if there is no group; else {1}
local base = string.sub(KEYS[1], 1, -5)
local g = ARGV[1]
if redis.pcall('GET', base .. 'own:' .. g) ~= ARGV[2] then
  return {redis.call('EXISTS', KEYS[2]) == 1 and -1 or -4}
end
for i = 4, #ARGV, 3 do
  if ARGV[i + 2] ~= '' then
    if redis.call('HEXISTS', base .. 'side:' .. g, ARGV[i]) == 1 then
      redis.call('HSET', base .. 'try:' .. g, ARGV[i], ARGV[i + 2])
    end
  else
    local r = redis.pcall('XCLAIM', base .. 'log', g, ARGV[3], 0, ARGV[i], 'RETRYCOUNT', ARGV[i + 1], 'JUSTID')
    if r.err then
      if string.find(r.err, '^NOGROUP') then
        return {-3}
      end
      return r
    end
  end
end
return {1}
