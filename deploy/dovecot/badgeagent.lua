-- Tells badgeagent how many unread messages a folder has, whenever that may
-- have changed: new mail, flags set or cleared, messages read, appended, moved,
-- trashed or expunged, folders created, renamed or deleted.
--
-- For Dovecot 2.3.9 and later of the 2.3 series. 11-badgeagent.conf loads it.
--
-- One small JSON object goes out for each folder of a transaction, after it
-- was committed: user, folder, event, and what STATUS says (unseen,
-- uidvalidity, highestmodseq). Of the messages themselves nothing is read, and
-- nothing is sent.
--
-- Settings, in Dovecot's plugin section:
--   badgeagent_url    where badgeagent listens, such as
--                     http://127.0.0.1:9466/v1/notify/dovecot
--   badgeagent_token  what it wants as bearer token
--
-- Mail never waits long for badgeagent: a request that is not answered within
-- a second is given up, with a warning in Dovecot's log, at most one a minute
-- from each session. badgeagent counts anew when it starts.

local client
local silent_until = 0

function script_init()
  client = dovecot.http.client({
    connect_timeout_msecs = 500,
    request_timeout_msecs = 1000,
    request_absolute_timeout_msecs = 1000,
    max_attempts = 2, -- the second for a connection that badgeagent has closed
    no_auto_redirect = true,
  })
  return 0
end

local function warn(text)
  if os.time() < silent_until then return end
  silent_until = os.time() + 60
  dovecot.i_warning("badgeagent: " .. text)
end

-- quote returns s as a JSON string. Bytes above 0x7f are UTF-8 already.
local function quote(s)
  return '"' .. s:gsub('[%c"\\]', function(c) return string.format("\\u%04x", c:byte()) end) .. '"'
end

-- count returns the members of the JSON object that tell the folder's count,
-- or nothing if it cannot be told: badgeagent asks over IMAP then.
local function count(user, folder)
  local counted, status = pcall(function()
    local box = user:mailbox(folder)
    box:sync()
    local status = box:status(dovecot.storage.STATUS_UNSEEN, dovecot.storage.STATUS_UIDVALIDITY, dovecot.storage.STATUS_HIGHESTMODSEQ)
    box:free()
    return status
  end)
  if not counted then return "" end
  return string.format(',"unseen":%.0f,"uidvalidity":%.0f,"highestmodseq":%.0f', status.unseen, status.uidvalidity, status.highest_modseq)
end

local function tell(user, folder, event)
  local url, token = user:plugin_getenv("badgeagent_url"), user:plugin_getenv("badgeagent_token")
  if url == nil or url == "" then
    warn("plugin { badgeagent_url } is not set")
    return
  end
  local request = client:request({ url = url, method = "POST" })
  request:add_header("Content-Type", "application/json")
  if token ~= nil then
    request:add_header("Authorization", "Bearer " .. token:gsub("%s+$", ""))
  end
  request:set_payload('{"user":' .. quote(user.username) .. ',"folder":' .. quote(folder) ..
    ',"event":' .. quote(event) .. count(user, folder) .. "}")
  local response = request:submit()
  if response:status() // 100 ~= 2 then
    warn(string.format("%s answered %d %s", url, response:status(), response:reason()))
  end
end

function dovecot_lua_notify_begin_txn(user)
  return { user = user, folders = {} }
end

local function changed(txn, event)
  txn.folders[event.mailbox] = event.name
end

-- MessageRead and MessageTrash are missing: FlagsSet comes with each.
dovecot_lua_notify_event_message_new = changed
dovecot_lua_notify_event_message_append = changed
dovecot_lua_notify_event_message_expunge = changed
dovecot_lua_notify_event_flags_set = changed
dovecot_lua_notify_event_flags_clear = changed
dovecot_lua_notify_event_mailbox_create = changed
dovecot_lua_notify_event_mailbox_delete = changed

function dovecot_lua_notify_event_mailbox_rename(txn, event)
  changed(txn, event)
  if event.mailbox_old ~= nil then txn.folders[event.mailbox_old] = event.name end
end

-- The end of a transaction comes even if it failed; then nothing has changed.
function dovecot_lua_notify_end_txn(txn, success)
  if success == false then return end
  for folder, event in pairs(txn.folders) do
    local told, why = pcall(tell, txn.user, folder, event)
    if not told then warn(tostring(why)) end
  end
end
