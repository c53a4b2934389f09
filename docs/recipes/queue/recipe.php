<?php

declare(strict_types=1);

namespace Flatrate;

final class QueueFull extends \RuntimeException
{
}

final class NoQueue extends \RuntimeException
{
}

/*
 * Messages for flatrate's queues from PHP: the keys and the script of the Go package queue. The client is that of the extension redis
 * (phpredis); give it a read timeout. PHP 8.1 or later, 64 bits.
 *
 *   $producer = new Producer($redis, 'mail');
 *   ['id' => $id] = $producer->send('hello', ['group' => 'tenant 1', 'dedup' => 'order-42']);
 *
 * The queue has to be there: whoever consumes it in Go makes it.
 */
final class Producer
{
    private static ?string $script = null;
    /** @var array{fifo: bool, parts: int}|null */
    private ?array $known = null;

    /** $maxBody: bytes of body and attributes, as Config.MaxBody in Go. */
    public function __construct(private \Redis $client, private string $name, private string $prefix = 'fr', private int $maxBody = 256 << 10)
    {
        if ($name === '' || strlen($name) > 256) {
            throw new \ValueError('name has not 1 to 256 bytes');
        }
        if ($prefix === '' || strlen($prefix) > 64 || preg_match('/[\x00-\x20\x7f{}]/', $prefix)) {
            throw new \ValueError('prefix is empty, over 64 bytes, or has a brace, a space or a control byte');
        }
        self::$script ??= file_get_contents(__DIR__ . '/../../../queue/send.lua');
    }

    public static function escape(string $name): string
    {
        $escaped = preg_replace_callback('/[\x00-\x20\x7f%{}]/', fn ($m) => sprintf('%%%02X', ord($m[0])), $name);
        return strlen($escaped) > 512 ? '%~' . hash('sha256', $name) : $escaped;
    }

    /** The partition of what has to be together: FNV-1a of 64 bits, folded. */
    public static function partition(string $key, int $parts): int
    {
        $hex = hash('fnv1a64', $key);
        [$high, $low] = [hexdec(substr($hex, 0, 8)), hexdec(substr($hex, 8))];
        return (($high % $parts) * (2 ** 32 % $parts) + ($low ^ $high) % $parts) % $parts;
    }

    /** What send.lua gets for a message; delay and uniqueFor are ms. */
    public static function argument(string $id, string $body, array $message = [], bool $fifo = false, int $parts = 1): string
    {
        [$group, $dedup, $unique] = [$message['group'] ?? '', $message['dedup'] ?? '', $message['unique'] ?? ''];
        $delay = $message['delay'] ?? 0;
        foreach (['group' => $group, 'dedup' => $dedup, 'unique' => $unique] as $what => $text) {
            if (strlen($text) > 128) {
                throw new \ValueError("$what is over 128 bytes");
            }
        }
        $attributes = $message['attributes'] ?? [];
        if (count($attributes) > 100) {
            throw new \ValueError('over 100 attributes');
        }
        ksort($attributes, SORT_STRING);
        $encoded = '';
        foreach ($attributes as $name => $value) {
            $name = (string) $name;
            if ($name === '' || strlen($name) > 256 || str_starts_with($name, 'fr.')) {
                throw new \ValueError("an attribute's name is empty, over 256 bytes, or begins with fr.");
            }
            $encoded .= strlen($name) . ':' . strlen($value) . ':' . $name . $value;
        }
        if ($fifo && ($group === '' || $delay > 0)) {
            throw new \ValueError('a FIFO queue needs a group, and has no delay of a message');
        }
        $mark = self::escape($dedup);
        if ($fifo && $parts > 1 && $mark !== '') {
            $mark = strlen($group) . '/' . self::escape($group) . '/' . $mark;
        }
        $options = '';
        if ($group !== '' || $mark !== '' || $unique !== '' || $delay > 0) {
            $options = ' ' . ($delay > 0 ? $delay : '') . " $mark " . self::escape($unique) . ' '
                . ($unique === '' ? '' : (int) ($message['uniqueFor'] ?? 0)) . "   \n";
        }
        return $options . "$id " . strlen($encoded) . ' ' . self::escape($group) . ' ' . self::escape($unique) . "\n" . $encoded . $body;
    }

    /** @return list<string> */
    public function keys(int $part): array
    {
        $head = "{$this->prefix}:queue:{" . self::escape("{$this->name}:$part") . '}:';
        return [$head . 'meta', $head . 'gone'];
    }

    /** @return array{fifo: bool, parts: int} */
    private function open(): array
    {
        if ($this->known === null) {
            $meta = $this->client->hMGet($this->keys(0)[0], ['fifo', 'parts']);
            if (($meta['fifo'] ?? false) === false) {
                throw new NoQueue($this->name);
            }
            $this->known = ['fifo' => $meta['fifo'] === '1', 'parts' => (int) $meta['parts']];
        }
        return $this->known;
    }

    /**
     * Sends a message: attributes, group, dedup, delay and uniqueFor (ms), unique. One round trip, after a first one.
     *
     * @return array{id: string, sequence: int, duplicate: bool}
     */
    public function send(string $body, array $message = []): array
    {
        ['fifo' => $fifo, 'parts' => $parts] = $this->open();
        $id = rtrim(strtr(base64_encode(random_bytes(16)), '+/', '-_'), '=');
        $argument = self::argument($id, $body, $message, $fifo, $parts);
        $size = strlen($body);
        foreach ($message['attributes'] ?? [] as $name => $value) {
            $size += strlen((string) $name) + strlen($value);
        }
        if ($size > $this->maxBody) {
            throw new \ValueError("body and attributes are over {$this->maxBody} bytes");
        }
        $where = ($message['group'] ?? '') ?: ($message['unique'] ?? '') ?: self::escape($message['dedup'] ?? '');
        $part = $where === '' ? random_int(0, $parts - 1) : self::partition($where, $parts);
        $this->client->clearLastError();
        $reply = $this->client->eval(self::$script, [...$this->keys($part), '1', $argument], 2);
        if (!is_array($reply)) {
            throw new \RuntimeException($this->client->getLastError() ?? 'the server did not answer');
        }
        if ($reply[0] < 0) {
            $this->known = null;
            throw new NoQueue($this->name);
        }
        $status = $reply[2] ?? "s{$reply[1]}";
        if ($status === 'f') {
            throw new QueueFull($this->name);
        }
        if ($status[0] === 's') {
            return ['id' => $id, 'sequence' => (int) substr($status, 1), 'duplicate' => false];
        }
        return ['id' => substr($status, 1) ?: $id, 'sequence' => 0, 'duplicate' => true];
    }
}
