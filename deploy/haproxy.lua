#!lua
-- Asks flatrate serve whether a request may go on; haproxy.cfg acts on txn.ratelimit, the status of the answer.
local url = "http://127.0.0.1:8080/v1/ratelimit/auth?plan=api"

core.register_action("ratelimit", { "http-req" }, function(txn)
	local headers = { ["x-forwarded-for"] = { txn.sf:src() } }
	local key = txn.sf:req_hdr("x-api-key")
	if key and key ~= "" then
		headers["x-api-key"] = { key }
	end
	local answer = core.httpclient():get({ url = url, headers = headers, timeout = 1000 })
	txn:set_var("txn.ratelimit", answer and answer.status or 503)
	local after = answer and answer.headers and answer.headers["retry-after"]
	txn:set_var("txn.retry_after", after and after[0] or "1")
end)
