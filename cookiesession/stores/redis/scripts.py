"""What Redis does in one step: the Lua scripts of `RedisStore`. Text alone; scores are as in layout.py."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple


class Script(NamedTuple):
    """A script, and the digest by which a server that has it knows it."""

    text: str
    digest: str

    @classmethod
    def of(cls, text: str) -> Script:
        """The script of this text."""
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())  # as EVALSHA wants it


# Puts an entry into an index: with the later expiry, so that it is not dropped before its record, and with the time of
# this writing. Then drops what has expired, and lets the index live as long as its longest entry.
_LIST: Final = """
local function list(index, member, score, expired, grace)
  score = tonumber(score)
  local old = tonumber(redis.call('ZSCORE', index, member) or 0)
  if old > score then score = math.floor(old / 1048576) * 1048576 + score % 1048576 end
  redis.call('ZADD', index, string.format('%.0f', score), member)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', expired)
  local last = redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')[2]
  if last then redis.call('EXPIREAT', index, string.format('%.0f', math.floor(last / 1048576) + grace)) end
end
"""

LIST: Final = Script.of(_LIST + "list(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4])")
"""KEYS: an index. ARGV: the member, its score, the score below which others have expired, the grace in seconds."""

# Leaves, unless the present record starts as it has to.
_CHECK: Final = """
if ARGV[1] == '' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
elseif redis.pcall('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then
  return 0
end
"""
_SET: Final = """
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
return 1
"""

WRITE: Final = Script.of(_CHECK + _SET)
"""KEYS: a record. ARGV: how the present one starts ('' for none), the new one, and the millisecond in which it expires.
Whether it was written, as 1 or 0."""

WRITE_LISTED: Final = Script.of(_LIST + _CHECK + "list(KEYS[2], ARGV[4], ARGV[5], ARGV[6], ARGV[7])" + _SET)
"""KEYS: a record and an index. ARGV: what `WRITE` takes, and then what `LIST` takes. Returns what `WRITE` does."""

DELETE: Final = Script.of("""
local start = redis.pcall('GETRANGE', KEYS[1], 0, ARGV[1] - 1)
if type(start) ~= 'string' or string.sub(start, 1, #ARGV[2]) ~= ARGV[2] then return false end
redis.call('DEL', KEYS[1])
return start
""")
"""KEYS: a record. ARGV: how many bytes of it to return, and how it starts. Returns them, or nil where none was."""

DROP: Final = Script.of("""
for at = 1, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[at])
  if score and tonumber(score) == tonumber(ARGV[at + 1]) then redis.call('ZREM', KEYS[1], ARGV[at]) end
end
""")
"""KEYS: an index. ARGV: members with their scores. Drops those that nobody has written since."""
