#!lua flags=no-writes
-- KEYS[1..]  sessions
-- reply    for each its record with the package's own members only, or '' if there is none
local reply = {}
for i, key in ipairs(KEYS) do
  local record = redis.call('GET', key) or ''
  local head, body = string.match(record, '^(1[^\n]*)\n{(.*)}$')
  reply[i] = ''
  if head then
    local lines = {}
    for line in string.gmatch(body .. ',\n', '(.-),\n') do
      if string.sub(line, 1, 2) == '"@' then
        lines[#lines + 1] = line
      end
    end
    reply[i] = head .. '\n{' .. table.concat(lines, ',\n') .. '}'
  end
end
return reply
