;;; fimble-ghost.el --- Ghost text at the cursor  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: MIT

;;; Commentary:

;; A suggestion is kept as the server gave it.  What is shown of it is worked out from the buffer each time: what has
;; been typed of it, and what stands behind the cursor that it covers, such as a bracket that was closed by itself.

;;; Code:

(require 'cl-lib)
(require 'subr-x)

(defface fimble-ghost '((t :inherit shadow))
  "Suggestions that are not part of the text yet."
  :group 'fimble)

(cl-defstruct fimble--ghost
  "A suggestion: TEXT in place of COVERS characters at START.
BEFORE and AFTER were the rest of the line then, and SIZE the
buffer's size.  COMMAND tells the server that it was accepted."
  start text covers before after size command)

(defvar-local fimble--ghost nil
  "The suggestion that is shown.")
(defvar-local fimble--overlay nil
  "Where it is shown.")

(defun fimble--behind ()
  "What stands on the line behind point."
  (let ((inhibit-field-text-motion t))
    (buffer-substring-no-properties (point) (line-end-position))))

(defun fimble--line-before (place)
  "What stands on its line before PLACE."
  (save-excursion
    (goto-char place)
    (forward-line 0)
    (buffer-substring-no-properties (point) place)))

(defun fimble--ghost-from (item)
  "The suggestion ITEM of the protocol at point; nil if it can't stand there."
  (let* ((text (plist-get item :insertText))
         (range (plist-get item :range))
         (before (fimble--line-before (point)))
         (column (length before))
         (start (if range (plist-get (plist-get range :start) :character) column))
         (end (if range (plist-get (plist-get range :end) :character) column))
         (behind (fimble--behind)))
    (when (and (<= start column end (+ column (length behind)))
               (string-prefix-p (substring before start) text))
      (make-fimble--ghost :start (point) :text (substring text (- column start)) :covers (- end column)
                          :before before :after behind :size (buffer-size)
                          :command (plist-get item :command)))))

(defun fimble--within-p (part whole)
  "Whether the characters of PART come in WHOLE, in this order."
  (let ((from 0))
    (cl-every (lambda (one)
                (when-let ((at (cl-position one whole :start from)))
                  (setq from (1+ at))))
              part)))

(defun fimble--rest ()
  "What is left of the suggestion at point, as (TEXT . COVERS); else nil."
  (when-let* ((ghost fimble--ghost)
              (start (fimble--ghost-start ghost))
              (text (fimble--ghost-text ghost))
              ((<= (point-min) start (point) (+ start (length text)))))
    (let* ((typed (buffer-substring-no-properties start (point)))
           (behind (fimble--behind))
           (after (fimble--ghost-after ghost))
           (grown (- (length behind) (length after)))
           (covers (+ (fimble--ghost-covers ghost) grown)))
      (when (and (string-prefix-p typed text)
                 (< (length typed) (length text))
                 (= (buffer-size) (+ (fimble--ghost-size ghost) (length typed) grown))
                 (<= 0 covers (length behind))
                 (equal (substring behind covers) (substring after (fimble--ghost-covers ghost)))
                 (equal (fimble--line-before start) (fimble--ghost-before ghost)))
        (let ((left (substring text (length typed)))
              (covered (substring behind 0 covers)))
          (when (and (fimble--within-p covered left) (not (equal covered left)))
            (cons left covers)))))))

(defun fimble--draw ()
  "Show what is left of the suggestion at point; if nothing is, forget it.
Return non-nil if something is shown."
  (when (overlayp fimble--overlay)
    (delete-overlay fimble--overlay))
  (setq fimble--overlay nil)
  (pcase (fimble--rest)
    ('nil (setq fimble--ghost nil))
    (`(,text . ,covers)
     (let ((covered (buffer-substring-no-properties (point) (+ (point) covers))))
       (when (and (string-suffix-p covered text) (not (string-search "\n" text)))
         (setq text (substring text 0 (- (length text) covers)) covers 0))
       (let ((overlay (make-overlay (point) (+ (point) covers)))
             (shown (propertize text 'face 'fimble-ghost)))
         (overlay-put overlay 'window (selected-window))
         (overlay-put overlay 'priority 100)
         (if (> covers 0)
             (overlay-put overlay 'display shown)
           (put-text-property 0 1 'cursor t shown) ; or the cursor would stand behind it
           (overlay-put overlay 'after-string shown))
         (setq fimble--overlay overlay))))))

(defun fimble--hide ()
  "Forget the suggestion."
  (setq fimble--ghost nil)
  (fimble--draw))

(defun fimble--insert (text covers)
  "Insert TEXT in place of COVERS characters, as an undo step of its own."
  (undo-boundary)
  (delete-region (point) (+ (point) covers))
  (insert text)
  (undo-boundary))

;;;; The same for a menu

(defun fimble--candidate (item word)
  "What `completion-at-point' may insert of ITEM in place of WORD: the first line.
Its other lines follow, and how many characters behind point it covers."
  (let ((lines (split-string (plist-get item :insertText) "\n"))
        (range (plist-get item :range)))
    (cons (concat word (car lines))
          (cons (- (plist-get (plist-get range :end) :character) (length (fimble--line-before (point))))
                (cdr lines)))))

(defun fimble--finish (lines covers)
  "Insert the other LINES of a candidate, and remove what it COVERS behind them."
  (dolist (line lines)
    (insert "\n" line))
  (delete-region (point) (+ (point) covers)))

(provide 'fimble-ghost)
;;; fimble-ghost.el ends here
