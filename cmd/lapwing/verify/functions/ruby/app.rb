# frozen_string_literal: true

require 'logger'

trap('TERM') do
  $stdout.write("SIGTERM seen\n")
  exit!(0)
end

LOG = Logger.new($stdout)

class Broken < StandardError; end

module Birds
  class Lapwing
    def self.handler(event:, context:) = event['value']
  end
end

def handler(event:, context:)
  case event['op']
  when 'context'
    return {
      id: context.aws_request_id, arn: context.invoked_function_arn, name: context.function_name, version: context.function_version,
      memory: context.memory_limit_in_mb.to_i, group: context.log_group_name, stream: context.log_stream_name,
      left: context.get_remaining_time_in_millis
    }
  when 'fail' then raise Broken, 'as told'
  when 'log'
    puts 'printed'
    LOG.warn("logged\nin lines")
    return nil
  when 'sleep' then sleep 60
  end
  event['value']
end
