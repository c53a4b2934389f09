<?php

declare(strict_types=1);

namespace Flatrate;

/*
 * flatrate's queues from PHP, for those who send: the keys and the script of the Go package queue, whose consumers receive. The
 * client is that of the extension redis (phpredis); give it a read timeout. PHP 8.1 or later, 64 bits.
 *
 *   $producer = new Producer($redis, 'orders');
 *   $sent = $producer->send($body, ['group' => 'customer:7', 'dedupId' => 'order-42']);
 *   $sent['id'], $sent['duplicate'] // an exception is no message sent, or one of which nobody knows
 *
 * All times are whole ms.
 */

/** The queue is not there, was deleted, or is not what the message is for. */
class QueueException extends \RuntimeException
{
}

/** The queue's quota has no room for the message. */
final class FullException extends QueueException
{
}

/** Sends to a queue that is there: a Go program makes it, or flatrate queue send --create. */
final class Producer
{
    private const LONGEST = 366 * 86_400_000; // ms
    private const BATCH = 128; // messages in one call
    private const BATCH_BYTES = 1 << 20;
    private const OPTIONS = ['attributes' => [], 'group' => '', 'dedupId' => '', 'delay' => 0, 'unique' => '', 'uniqueFor' => 0];

    private static ?string $script = null;
    private int $parts = 0;
    private bool $fifo = false;
    /** @var list<int> */
    private array $waiting = [];

    public function __construct(private \Redis $client, private string $name, private string $prefix = 'fr', private int $maxBody = 256 << 10)
    {
        if ($prefix === '' || strlen($prefix) > 64 || preg_match('/[\x00-\x20\x7f{}]/', $prefix)) {
            throw new \ValueError('prefix is empty, over 64 bytes, or has a brace, a space or a control byte');
        }
        if ($name === '' || strlen($name) > 256) {
            throw new \ValueError('the name has not 1 to 256 bytes');
        }
        self::$script ??= file_get_contents(__DIR__ . '/../../../queue/send.lua');
    }

    /** Asks what the queue is; the first send does so too. */
    public function open(): void
    {
        $answer = $this->client->hMGet($this->keys(0)[0], ['fifo', 'parts']);
        if (!is_array($answer)) {
            throw new \RedisException('queue: ' . $this->client->getLastError());
        }
        if ($answer['fifo'] === false || $answer['parts'] === false) {
            throw new QueueException('there is no such queue');
        }
        $this->become($answer['fifo'] === '1', (int) $answer['parts']);
    }

    /** What open does with its answer; for tests, too. */
    public function become(bool $fifo, int $parts): void
    {
        [$this->fifo, $this->parts, $this->waiting] = [$fifo, $parts, array_fill(0, $parts, 0)];
    }

    /** Sends one message. FullException: there is no room. Another exception: it may have been sent; give it a dedupId to repeat it. */
    public function send(string $body, array $options = []): array
    {
        $sent = $this->sendBatch([['body' => $body] + $options])[0];
        return isset($sent['error']) ? throw $sent['error'] : $sent;
    }

    /** Sends messages: send's options with a body. Each stands for itself, and has an error if it was not sent. */
    public function sendBatch(array $messages): array
    {
        if ($this->parts === 0) {
            $this->open();
        }
        $parts = $results = [];
        foreach (array_values($messages) as $i => $m) {
            $id = rtrim(strtr(base64_encode(random_bytes(16)), '+/', '-_'), '=');
            $m = $this->message($id, $m['body'], array_diff_key($m, ['body' => true]));
            $parts[$this->choose($m['where'])][$i] = $m;
        }
        foreach ($parts as $partition => $queued) {
            while ($queued !== []) {
                $n = $size = 0;
                foreach ($queued as $m) {
                    $size += strlen($m['arg']);
                    if ($n > 0 && ($n === self::BATCH || $size > self::BATCH_BYTES)) {
                        break;
                    }
                    $n++;
                }
                $batch = array_slice($queued, 0, $n, true);
                $queued = array_slice($queued, $n, null, true);
                try {
                    $sent = $this->call($partition, array_values($batch));
                } catch (\Exception $error) { // those of other calls stand for themselves
                    $sent = array_fill(0, $n, ['duplicate' => false, 'error' => $error]);
                }
                $results += array_combine(array_keys($batch), $sent);
            }
        }
        ksort($results);
        return $results;
    }

    /** @return array{id: string, arg: string, where: string} an argument of the script, and what it has to be in one partition with */
    public function message(string $id, string $body, array $options = []): array
    {
        if ($unknown = array_diff_key($options, self::OPTIONS)) {
            throw new \ValueError('there is no option ' . array_key_first($unknown));
        }
        ['attributes' => $attributes, 'group' => $group, 'dedupId' => $dedup, 'delay' => $delay, 'unique' => $unique, 'uniqueFor' => $for]
            = $options + self::OPTIONS;
        foreach (['group' => $group, 'dedupId' => $dedup, 'unique' => $unique] as $what => $text) {
            if (!is_string($text) || strlen($text) > 128) {
                throw new \ValueError("$what is no text, or over 128 bytes");
            }
        }
        foreach (['delay' => $delay, 'uniqueFor' => $for] as $what => $ms) {
            if (!is_int($ms) || $ms < 0 || $ms > self::LONGEST) {
                throw new \ValueError("$what is not from 0 to " . self::LONGEST);
            }
        }
        $size = strlen($body);
        $encoded = '';
        ksort($attributes, SORT_STRING);
        foreach ($attributes as $name => $value) {
            $name = (string) $name;
            if ($name === '' || strlen($name) > 256 || str_starts_with($name, 'fr.') || !is_string($value)) {
                throw new \ValueError("attribute $name: its name has not 1 to 256 bytes, or begins with fr., or it is no text");
            }
            $size += strlen($name) + strlen($value);
            $encoded .= strlen($name) . ':' . strlen($value) . ":$name$value";
        }
        if (count($attributes) > 100 || $size > $this->maxBody) {
            throw new \ValueError("over 100 attributes, or over {$this->maxBody} bytes with the body");
        }
        if ($for > 0 && $unique === '') {
            throw new \ValueError('uniqueFor without unique');
        }
        if ($this->fifo && ($group === '' || $delay > 0)) {
            throw new QueueException('a FIFO queue requires a group, and has no delay of a message');
        }
        [$dedup, $key, $label] = [self::label($dedup), self::label($unique), self::label($group)];
        $where = $group !== '' ? $group : ($key !== '' ? $key : $dedup);
        if ($this->fifo && $this->parts > 1 && $dedup !== '') {
            $dedup = strlen($group) . "/$label/$dedup";
        }
        $words = [$delay > 0 ? $delay : '', $dedup, $key, $key !== '' ? $for : '', '', '', ''];
        $bare = $group === '' && $dedup === '' && $key === '' && $delay === 0;
        $arg = ($bare ? '' : ' ' . implode(' ', $words) . "\n") . "$id " . strlen($encoded) . " $label $key\n$encoded$body";
        return ['id' => $id, 'arg' => $arg, 'where' => $where];
    }

    /** Sends the script; the test vectors say what it answers. now, in Unix ms, is for tests only. */
    public function run(int $partition, array $args, int ...$now): array
    {
        $all = [...$this->keys($partition), count($args), ...$args, ...$now];
        $this->client->clearLastError();
        $reply = $this->client->evalSha(sha1(self::$script), $all, 2);
        if ($reply === false && str_starts_with((string) $this->client->getLastError(), 'NOSCRIPT')) {
            $this->client->clearLastError();
            $reply = $this->client->eval(self::$script, $all, 2);
        }
        if (!is_array($reply)) { // it may have been sent: do not repeat it
            throw new \RedisException('queue: ' . $this->client->getLastError());
        }
        return $reply;
    }

    /** @return list<string> */
    public function keys(int $partition): array
    {
        $head = "{$this->prefix}:queue:{" . self::escape("{$this->name}:$partition") . '}:';
        return [$head . 'meta', $head . 'gone'];
    }

    /** The partition of whatever has to be in one: FNV-1a of 64 bits, folded. PHP has no unsigned integers. */
    public static function partitionOf(string $where, int $parts): int
    {
        [$high, $low] = array_values(unpack('N2', hash('fnv1a64', $where, true)));
        return (($high % $parts) * (2 ** 32 % $parts) + ($low ^ $high) % $parts) % $parts;
    }

    private function choose(string $where): int
    {
        if ($where !== '') {
            return self::partitionOf($where, $this->parts);
        }
        [$a, $b] = [random_int(0, $this->parts - 1), random_int(0, $this->parts - 1)];
        return $this->waiting[$b] < $this->waiting[$a] ? $b : $a;
    }

    private function call(int $partition, array $messages): array
    {
        $reply = $this->run($partition, array_column($messages, 'arg'));
        if ($reply[0] < 0) {
            $this->parts = 0;
            throw new QueueException($reply[0] === -1 ? 'the queue was deleted' : 'there is no such queue');
        }
        $this->waiting[$partition] = $reply[0];
        $sent = [];
        foreach ($messages as $i => ['id' => $id]) {
            $status = $reply[2 + $i] ?? 's' . ($this->fifo ? $reply[1] - count($messages) + 1 + $i : 0);
            $sent[] = match ($status[0]) {
                's' => ['id' => $id, 'sequence' => (int) substr($status, 1), 'duplicate' => false],
                'd' => ['id' => substr($status, 1), 'sequence' => 0, 'duplicate' => true],
                'f' => ['duplicate' => false, 'error' => new FullException('the queue is full')],
                default => ['duplicate' => false, 'error' => new QueueException("the queue refused it: $status")],
            };
        }
        return $sent;
    }

    private static function label(string $text): string
    {
        return $text === '' ? '' : self::escape($text);
    }

    private static function escape(string $name): string
    {
        $escaped = preg_replace_callback('/[\x00-\x20\x7f%{}]/', fn ($m) => sprintf('%%%02X', ord($m[0])), $name);
        return strlen($escaped) > 512 ? '%~' . hash('sha256', $name) : $escaped;
    }
}
