# frozen_string_literal: true

# Starts a Ruby function: loads its file and answers invocations until the
# environment ends. The behaviour is that of AWS's Ruby runtime.

require 'json'
require 'logger'
require 'socket'
require 'stringio'

require_relative 'lapwing_logs'
require_relative 'lapwing_client'
require_relative 'lapwing_context'
require_relative 'lapwing_faults'
require_relative 'lapwing_handler'
require_relative 'lapwing_loop'

$stdout.sync = true
$stderr.sync = true

Lapwing::Logs.open(ENV.delete('_LAMBDA_TELEMETRY_LOG_FD'))
client = Lapwing::Client.new(ENV.fetch('AWS_LAMBDA_RUNTIME_API'))
if ENV.delete('_LAPWING_RESTORABLE')
  require_relative 'lapwing_snapshot'
  snapshot = Lapwing::Snapshot.new
end
exit Lapwing::Loop.new(client, snapshot).run(ENV.fetch('_HANDLER'))
