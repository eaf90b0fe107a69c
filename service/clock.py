"""The clock of the scripts in Redis: the clocks of the processes differ, and it has but one."""

from typing import Final

# A worker whose clock is minutes ahead must not take away what the others hold. Tests give a time
# of their own.
CLOCK: Final = """
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
"""
