-- Run the commands of ARGV[2], a JSON list of lists of strings, if KEYS[1] still holds ARGV[1] ('' for nothing).
local there = redis.call('GET', KEYS[1])
if (there or '') ~= ARGV[1] then
  return 0
end
for _, command in ipairs(cjson.decode(ARGV[2])) do
  redis.call(unpack(command))
end
return 1
