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
exit Lapwing::Loop.new(Lapwing::Client.new(ENV.fetch('AWS_LAMBDA_RUNTIME_API'))).run(ENV.fetch('_HANDLER'))
