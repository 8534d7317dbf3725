-- Keep ARGV[2], version ARGV[1], for ARGV[3] milliseconds, unless what is there is as new.
-- Whoever read an old version and was slow must not put it over a newer one.
local there = redis.call('GET', KEYS[1])
if there and tonumber(string.match(there, '^%d+')) >= tonumber(ARGV[1]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2], 'PX', ARGV[3])
return 1
